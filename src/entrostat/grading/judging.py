"""How each kind of task is judged: what goes into the sandbox, and what must come out of it."""

from __future__ import annotations

import ast
import decimal
import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from entrostat.grading import wire
from entrostat.grading.extraction import code_candidates
from entrostat.grading.interpreter import NOTE_FAILURE
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import Failure, Interpreter
from entrostat.tasks import Call, Exchange, Expression, ProgramTask, ScriptTask, Spaces, Task, TaskError
from entrostat.tasks.task import syntax_tree

AnyTask = Task | ScriptTask | ProgramTask
JobKey = tuple[str, tuple[str, ...]]
CHECKER = "check"
_MAY_HANDLE = ("Try", "TryStar", "With", "AsyncWith")


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

    @property
    def largest(self) -> tuple[int, int]:
        """The bytes of the largest input and of the largest right answer."""

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
            comparison = Comparison(task.atol, task.rtol, task.spaces)
            digest = _digest("program", task.tests, comparison, task.checker, task.preamble)
            return ProgramTests(digest, task.tests, comparison, task.checker, task.preamble)


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
        """The verdict on the first code without a syntax error, or on the first of all."""
        if not self.codes:
            return Verdict(Outcome.NO_CODE, "the completion contains no code")
        first = judge(self.codes[0])
        if first.outcome is not Outcome.SYNTAX_ERROR:
            return first
        others = (judge(code) for code in self.codes[1:])
        return next((verdict for verdict in others if verdict.outcome is not Outcome.SYNTAX_ERROR), first)


def largest_of(tasks: Iterable[AnyTask]) -> tuple[int, int]:
    """The bytes of the largest input and of the largest right answer among the tests of tasks; 0 where unknown."""
    sizes = [tests_of(task).largest for task in tasks]
    return max((size for size, _ in sizes), default=0), max((size for _, size in sizes), default=0)


def prepare(
    pairs: Iterable[tuple[AnyTask, str]], output: float = float("inf"), disk: float = float("inf")
) -> list[Job]:
    """The jobs of (task, completion) pairs.

    TaskError for tests that are not plain data, and for those that nobody could pass: a right answer above `output`
    bytes, or a program's input and output above `disk` bytes together.
    """
    ready: dict[int, tuple[AnyTask, Tests]] = {}
    jobs = []
    for task, completion in pairs:
        if id(task) not in ready:
            ready[id(task)] = task, tests_of(task)
            _require_possible(task, ready[id(task)][1], output, disk)
        entry_point = None if isinstance(task, ProgramTask) else task.entry_point
        jobs.append(Job(ready[id(task)][1], code_candidates(completion, entry_point)))
    return jobs


def _require_possible(task: AnyTask, tests: Tests, output: float, disk: float) -> None:
    given, answer = tests.largest
    if answer > output:
        raise TaskError(
            f"task {task.id!r}: a right answer has {answer} bytes, above the limit of {output} bytes; nobody could "
            f"pass: raise the grader's output to {answer} or more, or leave the task out"
        )
    if isinstance(task, ProgramTask) and given + answer > disk:
        raise TaskError(
            f"task {task.id!r}: an input and its output have {given + answer} bytes, above the limit of {disk} bytes; "
            f"nobody could pass: raise the grader's disk to {given + answer} or more, or leave the task out"
        )


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
    rtol: float | None = None

    @property
    def largest(self) -> tuple[int, int]:
        """The bytes of the largest request, and of the largest right answer."""
        requests = (len(question.request) for question in self.questions)
        return max(requests), max(len(right) for question in self.questions for right in question.right)

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """Every question must be answered right. None is compared before the last one is answered.

        Else whether and when the next call comes would show the code whether its last answer was right.
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
        if not any(wire.matches(expected, answer, self.atol, self.equality, self.rtol) for expected in right):
            raise Failure(Outcome.WRONG, f"test {number} of {len(self.questions)}: answered {answer[:200]}")


@dataclass(frozen=True, slots=True)
class ScriptTests:
    """Assertions, which run in one sandboxed interpreter and ask the code in another one through the grader."""

    digest: str
    script: str
    preamble: str
    entry_point: str

    @property
    def largest(self) -> tuple[int, int]:
        """Nothing is known of what the script asks and expects."""
        return 0, 0

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
    exchanges: tuple[Exchange, ...]
    comparison: Comparison
    checker: str
    preamble: str

    def judge(self, interpreters: Interpreters, code: str) -> str:
        """Every run, each in a fresh interpreter, must print a right output."""
        for number, exchange in enumerate(self.exchanges, 1):
            with interpreters.start() as interpreter:
                printed = interpreter.run(self.preamble, code, exchange.stdin)
            if not (
                self.is_right(exchange, printed) or (self.checker and self._checks(interpreters, exchange, printed))
            ):
                raise self.wrong(number, printed)
        return f"{len(self.exchanges)} runs"

    def is_right(self, exchange: Exchange, printed: str) -> bool:
        """Whether this is one of the outputs that the exchange lists."""
        return any(self.comparison.same(right, printed) for right in (exchange.stdout, *exchange.also))

    def wrong(self, number: int, printed: str) -> Failure:
        """The failure of run `number`, counted from 1."""
        return Failure(Outcome.WRONG, f"test {number} of {len(self.exchanges)}: printed {printed[:200]!r}")

    def _checks(self, interpreters: Interpreters, exchange: Exchange, printed: str) -> bool:
        """What the task's checker says, in an interpreter of its own: the output can be hostile."""
        arguments = (exchange.stdin, printed, exchange.stdout)
        with interpreters.start() as examiner:
            try:
                examiner.load(self.checker)
            except Failure as failure:
                raise Failure(Outcome.UNFIT_TASK, f"checker: {failure.detail}") from None
            try:
                answer = examiner.ask("call", wire.encode((CHECKER, arguments, {})))
            except Failure:
                return False
        return answer == wire.encode(True)

    @property
    def largest(self) -> tuple[int, int]:
        """The bytes of the largest input, and of the largest right output."""
        outputs = (len(right.encode()) for each in self.exchanges for right in (each.stdout, *each.also))
        return max(len(each.stdin.encode()) for each in self.exchanges), max(outputs)


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
    digest = _digest("calls", questions, task.preamble, task.setup, task.atol, task.equality, task.rtol)
    return CallTests(digest, questions, task.preamble, task.setup, task.atol, task.equality, task.rtol)


def _question(name: str, test: Call | Expression) -> Question:
    if isinstance(test, Expression):
        return Question("evaluate", wire.encode(test.source), (wire.encode(test.expected),))
    right = tuple(wire.encode(answer) for answer in (test.expected, *test.also))
    return Question("call", wire.encode((name, tuple(test.args), dict(test.kwargs))), right)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()


@functools.lru_cache(maxsize=4096)
def to_its_end(script: str) -> str:
    """The script, with each assertion that does not hold noted instead of raised, so that the calls after it come.

    A script that may handle exceptions itself (it has a `try` or a `with`), or that does not parse, stays as it is.
    """
    try:
        tree = syntax_tree(script)
        if any(type(node).__name__ in _MAY_HANDLE for node in ast.walk(tree)):
            return script
        return ast.unparse(_NoteFailures().visit(tree))
    except (SyntaxError, RecursionError):
        return script


class _NoteFailures(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        note = ast.Call(ast.Name(NOTE_FAILURE, ast.Load()), [ast.Constant(node.lineno)], [])
        return ast.fix_missing_locations(
            ast.copy_location(ast.If(ast.UnaryOp(ast.Not(), node.test), [ast.Expr(note)], []), node)
        )


_LONGEST_NUMBER = 400
_EXACT = decimal.Context(prec=2 * _LONGEST_NUMBER, traps=[decimal.InvalidOperation, decimal.Overflow])
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How outputs compare, line by line.

    spaces "trailing": white space counts except at the ends of lines and of the output; "ends": nor does it at the
    beginnings of either; "words": nor do blank lines and the width of spaces. atol, rtol: numbers may differ by
    atol + rtol * |expected|; two whole numbers may not, whatever their length. None for both compares text alone.
    """

    atol: float | None = None
    rtol: float | None = None
    spaces: Spaces = "trailing"

    def same(self, expected: str, printed: str) -> bool:
        """Whether the outputs agree."""
        wanted, got = self._lines(expected), self._lines(printed)
        if wanted == got:
            return True
        if len(wanted) != len(got):
            return False
        pairs = zip(wanted, got, strict=True)
        return all(w == g or self._same_words(w.split(), g.split()) for w, g in pairs)

    def _lines(self, text: str) -> list[str]:
        text = text.rstrip() if self.spaces == "trailing" else text.strip()
        lines = [line.rstrip() if self.spaces == "trailing" else line.strip() for line in text.split("\n")]
        return lines if self.spaces != "words" else [line for line in lines if line]

    def _same_words(self, wanted: Sequence[str], got: Sequence[str]) -> bool:
        if self.atol is None and self.rtol is None:
            return self.spaces == "words" and wanted == got
        return len(wanted) == len(got) and all(map(self._same_word, wanted, got))

    def _same_word(self, wanted: str, got: str) -> bool:
        if wanted == got:
            return True
        whole, other = _WHOLE.fullmatch(wanted), _WHOLE.fullmatch(got)
        if whole and other:
            return whole[2] == other[2] and (whole[2] == "0" or (whole[1] == "-") == (other[1] == "-"))
        if max(len(wanted), len(got)) > _LONGEST_NUMBER:
            return False
        try:
            # Decimals, because as floats 10**16 + 0.1 and 10**16 are the same.
            with decimal.localcontext(_EXACT):
                expected = Decimal(wanted)
                allowed = Decimal(self.atol or 0.0) + Decimal(self.rtol or 0.0) * abs(expected)
                return expected.is_finite() and abs(expected - Decimal(got)) <= allowed
        except decimal.DecimalException:
            return False
