"""Verdicts on answers in words, by trusted code in the sandbox, because an answer can be hostile.

MathGrader compares mathematics by the library math-verify (the extra `maths`), PuzzleGrader the answers to
reasoning-gym's puzzles by the verifiers of that package (the extra `puzzles`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from entrostat.grading.code import CodeGrader
from entrostat.grading.verdict import Verdict
from entrostat.tasks import Call, Task

if TYPE_CHECKING:
    from typing_extensions import Self
from entrostat.tasks import AnswerTask, PuzzleTask

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


class MathGrader(AnswerGrader[AnswerTask]):
    """Judges completions by the last answer in them, which must equal the task's as mathematics: 1/2 is 0.5.

    Several boxed answers count as a set, so naming many does not help.
    """

    PACKAGES = ("antlr4", "latex2sympy2_extended", "math_verify", "mpmath", "sympy")
    JUDGE = """
from math_verify import parse, verify

def judge(right, text):
    given = parse(text, parsing_timeout=None)
    return bool(given) and verify(parse(right, parsing_timeout=None), given, timeout_seconds=None)
"""

    def arguments(self, task: AnswerTask, completion: str) -> tuple[object, ...]:
        """The right answer as LaTeX, and the completion."""
        marked = "$" in task.answer or "\\boxed" in task.answer
        return (task.answer if marked else f"${task.answer}$", completion)


class PuzzleGrader(AnswerGrader[PuzzleTask]):
    """Judges the last <answer>...</answer> of a completion, or the whole of it; only the full score passes.

    Some of the package's verifiers pay for anything: with reasoning-gym 0.1.25, any text that is not empty earns the
    reward of a true `game_of_life_halting`, "nan" that of `complex_arithmetic`, and "0" that of most `coin_flip`, by
    its first digit. So a verifier that accepts an answer is asked about three more (a word, "nan", "0"). If it accepts
    one of these, the answer must be the entry's own: as text, or as a number within 0.1 %.
    """

    PACKAGES = ("reasoning_gym", "mpmath", "sympy")
    JUDGE = """
from fractions import Fraction
from reasoning_gym import get_score_answer_fn

CONTROLS = ("unanswered", "nan", "0")

def answer_in(completion):
    opening = completion.rfind("<answer>", 0, max(0, completion.rfind("</answer>")))
    if opening < 0:
        return completion.strip()
    return completion[opening + len("<answer>") :].partition("</answer>")[0].strip()

def judge(family, entry, completion):
    answer, right = answer_in(completion), str(entry["answer"]).strip()
    accepts = lambda text: bool(get_score_answer_fn(family)(text, entry) >= 1)
    if not accepts(answer):
        return False
    return same(answer, right) or not any(accepts(text) for text in CONTROLS)

def same(answer, right):
    if answer.casefold() == right.casefold():
        return True
    try:
        wanted = number(right)
        return abs(number(answer) - wanted) <= abs(wanted) / 1000
    except (ValueError, OverflowError, ZeroDivisionError):
        return False

def number(text):
    try:
        return complex(Fraction(text))
    except ValueError:
        return complex(text.replace(" ", "").replace("i", "j"))
"""

    def arguments(self, task: PuzzleTask, completion: str) -> tuple[object, ...]:
        """The puzzle's family and entry, and the completion."""
        return (task.family, dict(task.entry), completion)
