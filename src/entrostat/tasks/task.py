"""The Task record: what a policy is asked, and the hidden calls that its code must answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    """TaskError for a tolerance that is negative, infinite or no number."""
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
