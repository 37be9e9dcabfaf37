"""Running untrusted code and judging what it answers."""

from entrostat.grading.answers import MathGrader, PuzzleGrader
from entrostat.grading.code import CodeGrader
from entrostat.grading.extraction import extract_code
from entrostat.grading.files import FileReport, SamplesError, grade_file, sample_counts, verdict_counts
from entrostat.grading.ray_pool import RayGrader
from entrostat.grading.remote import RemoteGrader
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import IsolationError, WorkerError

__all__ = [
    "CodeGrader",
    "FileReport",
    "IsolationError",
    "MathGrader",
    "Outcome",
    "PuzzleGrader",
    "RayGrader",
    "RemoteGrader",
    "SamplesError",
    "Verdict",
    "WorkerError",
    "extract_code",
    "grade_file",
    "sample_counts",
    "verdict_counts",
]
