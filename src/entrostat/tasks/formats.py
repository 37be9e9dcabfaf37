"""Tasks whose tests are not calls with expected values: assertion scripts, and programs that read and write text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrostat.tasks.task import TaskError, content_hash


@dataclass(frozen=True, slots=True)
class ScriptTask:
    """A function judged by a script of assertions, which runs in an interpreter of its own.

    script: Python source that calls the function by its name or as `candidate`, and raises if an answer is wrong.
    Arguments and answers cross between the two interpreters as plain data. preamble: source that runs before the
    code, and before the script (imports and helpers that the prompt gives).
    """

    id: str
    prompt: str
    entry_point: str
    script: str
    preamble: str = ""
    level: int = 0

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
    """One test of a program: the text on its standard input, and what it must print."""

    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True)
class ProgramTask:
    """A whole program. Each exchange runs it anew; printed lines compare without trailing white space.

    atol: absolute tolerance for numbers in the output; None compares the text. preamble: source that runs before the
    program, in its names.
    """

    id: str
    prompt: str
    tests: tuple[Exchange, ...]
    level: int = 0
    atol: float | None = None
    preamble: str = ""

    def __post_init__(self) -> None:
        if not self.tests:
            raise TaskError(
                f"task {self.id!r}: tests is empty; give at least one Exchange, else every program would pass"
            )

    def content_hash(self) -> str:
        """SHA-256 of the prompt and of everything that grading depends on, not of the id, as 64 hex digits."""
        tests = [(test.stdin, test.stdout) for test in self.tests]
        return content_hash(self.prompt, tests, self.atol, *([self.preamble] if self.preamble else []))
