"""AnswerGrader: verdicts on answers in words, by trusted code in the sandbox, because an answer can be hostile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from entrostat.grading.code import CodeGrader
from entrostat.grading.verdict import Verdict
from entrostat.tasks import Call, Task

if TYPE_CHECKING:
    from typing_extensions import Self

Question = TypeVar("Question")


class AnswerGrader(ABC, Generic[Question]):
    """Judges completions by a function `judge` of the source `JUDGE`, which may import `PACKAGES` and must answer True.

    Comparing an answer can take any time and memory (think of 9^9^9^9), so it runs where code runs: under the same
    limits, in an interpreter that ends with the comparison. Settings and errors are those of CodeGrader; ValueError
    names a package that is not installed.
    """

    PACKAGES: Sequence[str]
    JUDGE: str

    def __init__(
        self,
        workers: int = 2,
        timeout: float = 3.0,
        memory: int = 1 << 30,
        isolation: Literal["full", "best-effort"] = "full",
        memo: int = 0,
    ) -> None:
        self._grader = CodeGrader(workers, timeout, memory, isolation=isolation, memo=memo, packages=self.PACKAGES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._grader.close()

    def grade(self, pairs: Iterable[tuple[Question, str]], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order; deadline as in CodeGrader.grade."""
        questions = [(self.arguments(task, completion), self.JUDGE) for task, completion in pairs]
        return self._grader.grade(
            [(Task("answer", "", "judge", (Call(args, True),)), judge) for args, judge in questions], deadline
        )

    @abstractmethod
    def arguments(self, task: Question, completion: str) -> tuple[object, ...]:
        """What `judge` is called with: plain data."""
