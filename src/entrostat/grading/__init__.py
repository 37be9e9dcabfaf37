"""Running untrusted code and judging what it answers."""

from entrostat.grading.code import CodeGrader
from entrostat.grading.extraction import extract_code
from entrostat.grading.maths import MathGrader
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import IsolationError, WorkerError

__all__ = ["CodeGrader", "IsolationError", "MathGrader", "Outcome", "Verdict", "WorkerError", "extract_code"]
