"""What a policy is asked and how its answer is tested.

A Task has hidden calls that its code must answer; a ScriptTask has a script of assertions; a ProgramTask reads and
writes text; AnswerTask and PuzzleTask ask for an answer in words.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from entrostat.errors import EntrostatError

Equality = Literal["exact", "python", "json"]


class TaskError(EntrostatError, ValueError):
    """A task that cannot be graded; the message names the task, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Call:
    """One hidden test: the entry point is called with `args` and must return `expected`, types included.

    also: other answers that are as right, where a set does not say which of several it wants.
    """

    args: tuple[Any, ...]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Expression:
    """One hidden test whose arguments only the code can make: `max_chain([Pair(5, 24)])` with its own class Pair.

    The source is evaluated where the code lives and must give `expected`, which stays with the grader.
    """

    source: str
    expected: Any


@dataclass(frozen=True, slots=True)
class Task:
    """A programming task with its hidden tests.

    id: unique within its set. prompt: what the policy reads. entry_point: the function that the tests call. tests: at
    least one Call or Expression. level: difficulty, 0 where the source gives none. atol, rtol: floats in answers may
    differ by atol + rtol * |expected|; None for both compares them exactly. equality: "exact" wants the expected
    value's types throughout, "python" what == accepts (1 == 1.0 == True), "json" in addition takes tuples for lists, as
    sets kept in JSON do. preamble: source that runs before the code, such as the prompt's imports. setup: source that
    runs after the code and before the tests, such as objects that Expressions share; the code can read it. reference: a
    solution that should pass, "" for none.
    """

    id: str
    prompt: str
    entry_point: str
    tests: tuple[Call | Expression, ...]
    level: int = 0
    atol: float | None = None
    equality: Equality = "exact"
    preamble: str = ""
    setup: str = ""
    rtol: float | None = None
    reference: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            raise TaskError("task: id is empty; give every task a name that is unique in its set")
        if not self.tests:
            raise TaskError(f"task {self.id!r}: tests is empty; give at least one Call, else every answer would pass")
        if not self.entry_point.isidentifier():
            raise TaskError(
                f"task {self.id!r}: entry_point is {self.entry_point!r}, not a Python identifier; "
                "name the function that the tests call"
            )
        require_tolerances(self.id, self.atol, self.rtol)
        if self.equality not in ("exact", "python", "json"):
            raise TaskError(f"task {self.id!r}: equality is {self.equality!r}; allowed: exact, python, json")

    def content_hash(self) -> str:
        """SHA-256 of the prompt and of everything that grading depends on, not of the id, as 64 hex digits."""
        tests = [_content(test) for test in self.tests]
        extra = [part for part in (self.setup, self.rtol) if part]
        return content_hash(self.prompt, self.entry_point, tests, self.atol, self.equality, self.preamble, *extra)


def require_tolerances(identity: str, atol: float | None, rtol: float | None) -> None:
    """TaskError for a tolerance that is negative, infinite or not a number."""
    for name, value in (("atol", atol), ("rtol", rtol)):
        if value is not None and not 0 <= value < float("inf"):
            raise TaskError(f"task {identity!r}: {name} is {value!r}; allowed: a finite number from 0, or None")


def _content(test: Call | Expression) -> tuple[Any, ...]:
    if isinstance(test, Expression):
        return test.source, test.expected
    return (test.args, dict(test.kwargs), test.expected, *([test.also] if test.also else []))


def content_hash(*parts: object) -> str:
    """SHA-256 of plain data, as 64 hex digits: the same in every process, whatever the order of sets."""
    return hashlib.sha256(_stable_text(parts).encode(errors="backslashreplace")).hexdigest()


def _stable_text(value: object) -> str:
    match value:
        case bool():
            return repr(value)
        case int():
            return hex(value)
        case list() | tuple():
            return type(value).__name__ + "(" + ",".join(map(_stable_text, value)) + ")"
        case set() | frozenset():
            return type(value).__name__ + "(" + ",".join(sorted(map(_stable_text, value))) + ")"
        case dict():
            return "dict(" + ",".join(_stable_text(pair) for pair in value.items()) + ")"
    return repr(value)


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


_PARSING = threading.Lock()
_TRIES = 20


def syntax_tree(source: str) -> ast.Module:
    """The tree of `ast.parse`. SyntaxError for anything that is not Python source.

    CPython before 3.13 counts the depth of a tree once per interpreter, so of two threads that parse at the same
    time one can fail with SystemError. Ours take turns; where a thread of another library was in the way, the tree
    is parsed again.
    """
    for _ in range(_TRIES):
        try:
            with _PARSING:
                return ast.parse(source)
        except SystemError:
            continue
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error
    raise SyntaxError("other threads of this program kept the parser busy")
