"""MathGrader: verdicts on mathematical answers, by the library math-verify (the extra `maths`) in the sandbox.

Comparing two expressions can take any time and memory (think of 9^9^9^9), so it runs where code runs: under the same
limits, in an interpreter that ends with the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from entrostat.grading.code import CodeGrader
from entrostat.grading.verdict import Verdict
from entrostat.tasks import AnswerTask, Call, Task

_PACKAGES = ("antlr4", "latex2sympy2_extended", "math_verify", "mpmath", "sympy")
_JUDGE = """
from math_verify import parse, verify

def judge(right, text):
    given = parse(text, parsing_timeout=None)
    return bool(given) and verify(parse(right, parsing_timeout=None), given, timeout_seconds=None)
"""


class MathGrader:
    """Judges completions by the last answer in them, which must equal the task's as mathematics: 1/2 is 0.5.

    Several boxed answers count as a set, so naming many does not help. Settings and errors are those of CodeGrader;
    ValueError says so if math-verify is not installed.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout: float = 3.0,
        memory: int = 1 << 30,
        isolation: Literal["full", "best-effort"] = "full",
        memo: int = 0,
    ) -> None:
        self._grader = CodeGrader(workers, timeout, memory, isolation=isolation, memo=memo, packages=_PACKAGES)

    def __enter__(self) -> MathGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._grader.close()

    def grade(self, pairs: Iterable[tuple[AnswerTask, str]], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order; deadline as in CodeGrader.grade."""
        return self._grader.grade([(_comparison(task, text), _JUDGE) for task, text in pairs], deadline)


def _comparison(task: AnswerTask, text: str) -> Task:
    answer = task.answer if "$" in task.answer or "\\boxed" in task.answer else f"${task.answer}$"
    return Task(task.id, task.prompt, "judge", (Call((answer, text), True),))
