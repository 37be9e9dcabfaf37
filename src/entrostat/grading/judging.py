"""How each kind of task is judged: what goes into the sandbox, and what must come out of it."""

from __future__ import annotations

import decimal
import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from entrostat.grading import wire
from entrostat.grading.extraction import code_candidates
from entrostat.grading.scripts import to_its_end
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import Failure, Interpreter
from entrostat.tasks import Call, Expression, ProgramTask, ScriptTask, Task, TaskError

AnyTask = Task | ScriptTask | ProgramTask
JobKey = tuple[str, tuple[str, ...]]
_LONGEST_NUMBER = 400
_EXACT = decimal.Context(prec=2 * _LONGEST_NUMBER, traps=[decimal.InvalidOperation, decimal.Overflow])


class Interpreters(Protocol):
    """Where fresh sandboxed interpreters come from."""

    def start(self) -> AbstractContextManager[Interpreter]:
        """A fresh interpreter, ended when its context is left."""

    def seed(self, *parts: str) -> int:
        """A seed that the code cannot foresee; the same for the same parts."""


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
            name = unicodedata.normalize("NFKC", task.entry_point)
            digest = _digest("script", task.script, task.preamble, name)
            return ScriptTests(digest, task.script, task.preamble, name)
        case ProgramTask():
            exchanges = tuple((test.stdin, test.stdout) for test in task.tests)
            digest = _digest("program", exchanges, task.atol, task.preamble)
            return ProgramTests(digest, exchanges, task.atol, task.preamble)


@dataclass(frozen=True, slots=True)
class Job:
    """Code to be judged by tests: of several readings of a completion, the first that compiles; none, no code."""

    tests: Tests
    codes: tuple[str, ...]

    @property
    def key(self) -> JobKey:
        """Equal for equal gradings."""
        return self.tests.digest, self.codes

    def first_that_compiles(self, judge: Callable[[str], Verdict]) -> Verdict:
        """The verdict on the first code that is no syntax error, or on the first of all."""
        if not self.codes:
            return Verdict(Outcome.NO_CODE, "the completion contains no code")
        first = judge(self.codes[0])
        if first.outcome is not Outcome.SYNTAX_ERROR:
            return first
        others = (judge(code) for code in self.codes[1:])
        return next((verdict for verdict in others if verdict.outcome is not Outcome.SYNTAX_ERROR), first)


def prepare(pairs: Iterable[tuple[AnyTask, str]]) -> list[Job]:
    """The jobs of (task, completion) pairs; TaskError for tests that are not plain data."""
    ready: dict[int, tuple[AnyTask, Tests]] = {}
    jobs = []
    for task, completion in pairs:
        if id(task) not in ready:
            ready[id(task)] = task, tests_of(task)
        entry_point = None if isinstance(task, ProgramTask) else task.entry_point
        jobs.append(Job(ready[id(task)][1], code_candidates(completion, entry_point)))
    return jobs


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the sandbox, a "call" or an expression to "evaluate", and the answers that are right: all texts."""

    kind: str
    request: str
    right: tuple[str, ...]

    @property
    def longest(self) -> int:
        """The number of characters that are enough to compare any answer."""
        return max(map(wire.longest_match, self.right)) + 1


@dataclass(frozen=True, slots=True)
class CallTests:
    """Questions, whose right answers stay here."""

    digest: str
    questions: tuple[Question, ...]
    preamble: str
    setup: str
    atol: float | None
    equality: wire.Equality

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """Every question must be answered right. None is compared before the last one is answered.

        Else whether and when the next call comes would tell the code whether its last answer was right.
        """
        answers: list[str] = []
        failure = None
        with interpreters.start() as interpreter:
            _load(interpreter, self.preamble, code, self.setup)
            try:
                for question in self.questions:
                    answers.append(interpreter.ask(question.kind, question.request)[: question.longest])
            except Failure as later:
                failure = later
        for number, answer in enumerate(answers, 1):
            self.check(number, answer)
        if failure:
            raise failure
        return f"{len(self.questions)} tests"

    def check(self, number: int, answer: str) -> None:
        """Failure if this is not a right answer to question `number`, counted from 1."""
        right = self.questions[number - 1].right
        if not any(wire.matches(expected, answer, self.atol, self.equality) for expected in right):
            raise Failure(Outcome.WRONG, f"test {number} of {len(self.questions)}: answered {answer[:200]}")


@dataclass(frozen=True, slots=True)
class ScriptTests:
    """Assertions, which run in one sandboxed interpreter and ask the code in another one through the grader."""

    digest: str
    script: str
    preamble: str
    entry_point: str

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """The script must call the function and end without an exception."""
        seed = interpreters.seed(self.digest, code)
        with interpreters.start() as interpreter, interpreters.start() as examiner:
            _load(interpreter, self.preamble, code)
            examiner.judge(to_its_end(self.script), self.preamble, self.entry_point, seed, interpreter.call)
        return "all assertions"


@dataclass(frozen=True, slots=True)
class ProgramTests:
    """Texts for standard input and the output expected, which stays here."""

    digest: str
    exchanges: tuple[tuple[str, str], ...]
    atol: float | None
    preamble: str

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """Every run, each in a fresh interpreter, must print the expected lines."""
        for number, (stdin, stdout) in enumerate(self.exchanges, 1):
            with interpreters.start() as interpreter:
                printed = interpreter.run(self.preamble, code, stdin)
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
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_words(wanted: Sequence[str], got: Sequence[str], atol: float) -> bool:
    return len(wanted) == len(got) and all(_same_word(w, g, atol) for w, g in zip(wanted, got, strict=True))


def _same_word(wanted: str, got: str, atol: float) -> bool:
    """Equal as text, or as numbers: decimals, because as floats 10**16 and 10**16 + 1 are the same."""
    if wanted == got:
        return True
    if max(len(wanted), len(got)) > _LONGEST_NUMBER:
        return False
    try:
        with decimal.localcontext(_EXACT):
            return abs(Decimal(wanted) - Decimal(got)) <= Decimal(atol)
    except decimal.DecimalException:
        return False


def _load(interpreter: Interpreter, *sources: str) -> None:
    for source in filter(None, sources):
        interpreter.load(source)


def _calls(task: Task) -> CallTests:
    try:
        # As Python does: a name is its NFKC form.
        name = unicodedata.normalize("NFKC", task.entry_point)
        questions = tuple(_question(name, test) for test in task.tests)
    except wire.NotPlainError as error:
        raise TaskError(
            f"task {task.id!r}: tests holds {error}; tests are made of None, numbers, text and containers"
        ) from None
    digest = _digest("calls", questions, task.preamble, task.setup, task.atol, task.equality)
    return CallTests(digest, questions, task.preamble, task.setup, task.atol, task.equality)


def _question(name: str, test: Call | Expression) -> Question:
    if isinstance(test, Expression):
        return Question("evaluate", wire.encode(test.source), (wire.encode(test.expected),))
    right = tuple(wire.encode(answer) for answer in (test.expected, *test.also))
    return Question("call", wire.encode((name, tuple(test.args), dict(test.kwargs))), right)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()
