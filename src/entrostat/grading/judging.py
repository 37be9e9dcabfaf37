"""How each kind of task is judged: what goes into the sandbox, and what must come out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from entrostat.grading import wire
from entrostat.grading.extraction import extract_code
from entrostat.grading.verdict import Outcome
from entrostat.grading.worker import Failure, Interpreter
from entrostat.tasks import ProgramTask, ScriptTask, Task, TaskError

AnyTask = Task | ScriptTask | ProgramTask


class Interpreters(Protocol):
    """Where fresh sandboxed interpreters come from."""

    def start(self) -> AbstractContextManager[Interpreter]:
        """A fresh interpreter, ended when its context is left."""


class Tests(Protocol):
    """A task's tests, ready to judge code."""

    @property
    def digest(self) -> str:
        """The hash of all that a verdict depends on besides the code."""

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """What was passed, in words; Failure if the code fails."""


def tests_of(task: AnyTask) -> Tests:
    """A task's tests made ready; TaskError if they are not plain data."""
    match task:
        case Task():
            return _calls(task)
        case ScriptTask():
            digest = _digest("script", task.script, task.preamble, task.entry_point)
            return ScriptTests(digest, task.script, task.preamble, task.entry_point)
        case ProgramTask():
            exchanges = tuple((test.stdin, test.stdout) for test in task.tests)
            return ProgramTests(_digest("program", exchanges, task.atol), exchanges, task.atol)


@dataclass(frozen=True, slots=True)
class Job:
    """Code to be judged by tests; no code where the completion holds none."""

    tests: Tests
    code: str | None

    @property
    def key(self) -> tuple[str, str | None]:
        """Equal for equal gradings."""
        return self.tests.digest, self.code


def prepare(pairs: Iterable[tuple[AnyTask, str]]) -> list[Job]:
    """The jobs of (task, completion) pairs; TaskError for tests that are not plain data."""
    ready: dict[int, tuple[AnyTask, Tests]] = {}
    jobs = []
    for task, completion in pairs:
        if id(task) not in ready:
            ready[id(task)] = task, tests_of(task)
        entry_point = None if isinstance(task, ProgramTask) else task.entry_point
        jobs.append(Job(ready[id(task)][1], extract_code(completion, entry_point)))
    return jobs


@dataclass(frozen=True, slots=True)
class CallTests:
    """Calls as text: requests to the sandbox and the answers expected, which stay here."""

    digest: str
    calls: tuple[tuple[str, str], ...]
    preamble: str
    atol: float | None
    equality: wire.Equality

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """Every call must be answered with its expected value."""
        with interpreters.start() as interpreter:
            _load(interpreter, self.preamble, code)
            for number, (request, expected) in enumerate(self.calls, 1):
                answer = interpreter.call(request)
                if not wire.matches(expected, answer, self.atol, self.equality):
                    raise Failure(Outcome.WRONG, f"test {number} of {len(self.calls)}: answered {answer[:200]}")
        return f"{len(self.calls)} tests"


@dataclass(frozen=True, slots=True)
class ScriptTests:
    """Assertions, which run in one sandboxed interpreter and ask the code in another one through the grader."""

    digest: str
    script: str
    preamble: str
    entry_point: str

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """The script must call the function and end without an exception."""
        with interpreters.start() as interpreter, interpreters.start() as examiner:
            _load(interpreter, self.preamble, code)
            examiner.judge(self.script, self.preamble, self.entry_point, interpreter.call)
        return "all assertions"


@dataclass(frozen=True, slots=True)
class ProgramTests:
    """Texts for standard input and the output expected, which stays here."""

    digest: str
    exchanges: tuple[tuple[str, str], ...]
    atol: float | None

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """Every run, each in a fresh interpreter, must print the expected lines."""
        for number, (stdin, stdout) in enumerate(self.exchanges, 1):
            with interpreters.start() as interpreter:
                printed = interpreter.run(code, stdin)
            if not same_lines(stdout, printed, self.atol):
                raise Failure(Outcome.WRONG, f"test {number} of {len(self.exchanges)}: printed {printed[:200]!r}")
        return f"{len(self.exchanges)} runs"


def same_lines(expected: str, printed: str, atol: float | None = None) -> bool:
    """Whether outputs agree: lines without trailing white space, or word by word with numbers within atol."""
    wanted, got = _lines(expected), _lines(printed)
    if wanted == got or atol is None or len(wanted) != len(got):
        return wanted == got
    return all(_same_words(w.split(), g.split(), atol) for w, g in zip(wanted, got, strict=True))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _same_words(wanted: Sequence[str], got: Sequence[str], atol: float) -> bool:
    return len(wanted) == len(got) and all(_same_word(w, g, atol) for w, g in zip(wanted, got, strict=True))


def _same_word(wanted: str, got: str, atol: float) -> bool:
    try:
        return wanted == got or abs(float(wanted) - float(got)) <= atol
    except ValueError:
        return False


def _load(interpreter: Interpreter, preamble: str, code: str) -> None:
    if preamble:
        interpreter.load(preamble)
    interpreter.load(code)


def _calls(task: Task) -> CallTests:
    try:
        calls = tuple(
            (wire.encode((task.entry_point, tuple(call.args), dict(call.kwargs))), wire.encode(call.expected))
            for call in task.tests
        )
    except wire.NotPlainError as error:
        raise TaskError(
            f"task {task.id!r}: tests holds {error}; tests are made of None, numbers, text and containers"
        ) from None
    digest = _digest("calls", calls, task.preamble, task.atol, task.equality)
    return CallTests(digest, calls, task.preamble, task.atol, task.equality)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()
