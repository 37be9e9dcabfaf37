"""Tasks whose tests are not calls with expected values: assertion scripts, and programs that read and write text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from entrostat.tasks.task import TaskError, content_hash, require_tolerances

Spaces = Literal["trailing", "ends", "words"]


@dataclass(frozen=True, slots=True)
class ScriptTask:
    """A function judged by a script of assertions, which runs in an interpreter of its own.

    script: Python source that calls the function by its name or as `candidate`, and raises if an answer is wrong.
    Arguments and answers cross between the two interpreters as plain data. preamble: source that runs before the
    code, and before the script (imports and helpers that the prompt gives). reference: a solution that should pass, ""
    for none.
    """

    id: str
    prompt: str
    entry_point: str
    script: str
    preamble: str = ""
    level: int = 0
    reference: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.entry_point.isidentifier():
            raise TaskError(f"task {self.id!r}: entry_point is {self.entry_point!r}, not a Python identifier")
        if not self.script.strip():
            raise TaskError(
                f"task {self.id!r}: script is empty; give at least one assertion, else every answer would pass"
            )

    def content_hash(self) -> str:
        """SHA-256 of the prompt and of everything that grading depends on, not of the id, as 64 hex digits."""
        return content_hash(self.prompt, self.entry_point, self.script, self.preamble)


@dataclass(frozen=True, slots=True)
class AnswerTask:
    """A question with one right answer in words or mathematics, such as "\\frac{1}{2}"."""

    id: str
    prompt: str
    answer: str
    level: int = 0

    def __post_init__(self) -> None:
        if not self.answer.strip():
            raise TaskError(f"task {self.id!r}: answer is empty; give the right answer")

    def content_hash(self) -> str:
        """SHA-256 of the prompt and the answer, not of the id, as 64 hex digits."""
        return content_hash(self.prompt, self.answer)


@dataclass(frozen=True, slots=True)
class PuzzleTask:
    """A puzzle of reasoning-gym, which its family's verifier judges.

    entry: the puzzle as the package makes it (question, answer, metadata), plain data.
    """

    id: str
    prompt: str
    family: str
    entry: Mapping[str, Any]
    level: int = 0

    def content_hash(self) -> str:
        """SHA-256 of the prompt and of everything that grading depends on, not of the id, as 64 hex digits."""
        return content_hash(self.prompt, self.family, dict(self.entry))


@dataclass(frozen=True, slots=True)
class Exchange:
    """One test of a program: the text on its standard input, and what it must print; also: outputs as right."""

    stdin: str
    stdout: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgramTask:
    """A whole program. Each exchange runs it anew, and what it prints is compared line by line.

    spaces "trailing": white space counts except at the ends of lines and of the output; "ends": nor does it at their
    beginnings; "words": nor do blank lines and the width of spaces. atol, rtol: numbers in the output may differ by
    atol + rtol * |expected|, but two whole numbers may not; None for both compares the text. checker: source of a
    function `check(stdin, printed, stdout)` that answers True for a right output, where there are too many to list; it
    runs in an interpreter of its own, and an exception of it is a wrong answer. preamble: source that runs before the
    program, in its names. reference: a program that should pass, "" for none.
    """

    id: str
    prompt: str
    tests: tuple[Exchange, ...]
    level: int = 0
    atol: float | None = None
    preamble: str = ""
    rtol: float | None = None
    spaces: Spaces = "trailing"
    checker: str = ""
    reference: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.tests:
            raise TaskError(
                f"task {self.id!r}: tests is empty; give at least one Exchange, else every program would pass"
            )
        require_tolerances(self.id, self.atol, self.rtol)
        if self.spaces not in get_args(Spaces):
            raise TaskError(f"task {self.id!r}: spaces is {self.spaces!r}; allowed: {', '.join(get_args(Spaces))}")

    def content_hash(self) -> str:
        """SHA-256 of the prompt and of everything that grading depends on, not of the id, as 64 hex digits."""
        tests = [(test.stdin, test.stdout, *([test.also] if test.also else [])) for test in self.tests]
        spaces = "" if self.spaces == "trailing" else self.spaces
        extra = [part for part in (self.preamble, self.rtol, spaces, self.checker) if part]
        return content_hash(self.prompt, tests, self.atol, *extra)
