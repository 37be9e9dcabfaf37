"""The Task record: what a policy is asked, and the hidden calls that its code must answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class TaskError(ValueError):
    """A task that cannot be graded; the message names the task, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Call:
    """One hidden test: the entry point is called with `args` and must return `expected`, types included."""

    args: tuple[Any, ...]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """A programming task with its hidden tests.

    id: unique within its set. prompt: what the policy reads. entry_point: the function that the tests call.
    tests: at least one Call. level: difficulty, 0 where the source gives none. atol: absolute tolerance for
    floats in answers; None compares them exactly.
    """

    id: str
    prompt: str
    entry_point: str
    tests: tuple[Call, ...]
    level: int = 0
    atol: float | None = None

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

    def content_hash(self) -> str:
        """SHA-256 of everything the grading depends on, as 64 hex digits: equal tasks, equal hashes."""
        tests = [(repr(t.args), repr(sorted(t.kwargs.items())), repr(t.expected)) for t in self.tests]
        text = json.dumps([self.id, self.prompt, self.entry_point, tests, self.atol])
        return hashlib.sha256(text.encode()).hexdigest()
