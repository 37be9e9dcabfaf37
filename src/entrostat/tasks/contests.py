"""Published task sets with schemas of their own: APPS, LiveCodeBench, EvalPlus, BigCodeBench.

EvalPlus's files (Liu et al., arXiv 2305.01210), HumanEvalPlus.jsonl.gz and MbppPlus.jsonl.gz, hold inputs and a
reference solution, and no answers: the script computes them by the reference, in the sandbox, and compares as EvalPlus
does (equal; floats within atol, 1e-6 where the record says 0, and rtol 1e-7). Departures: EvalPlus's special
comparisons of single MBPP tasks, and its conversion of some of MBPP's inputs to tuples, are not carried; `entrostat
tasks check` names tasks whose reference then fails. BigCodeBench: Zhuo et al., arXiv 2406.15877.
"""

from __future__ import annotations

import base64
import json
import pickletools
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import AliasChoices, Field

from entrostat.tasks.records import Published, Record, checked, parsed
from entrostat.tasks.task import Call, Exchange, ProgramTask, ScriptTask, Task, TaskError

_HARNESS_MODULES = (
    "string re datetime time collections fractions heapq bisect copy math random statistics itertools functools "
    "operator io sys json typing"
)
_PICKLED_TEXT = "PROTO FRAME UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 PUT BINPUT LONG_BINPUT MEMOIZE STOP"
_LARGEST_TESTS = 1 << 30


class NoTestError(TaskError):
    """A record that holds no test, so that nothing could be graded by it."""


class AppsRecord(Published):
    """A record of APPS."""

    problem_id: int | str = Field(validation_alias=AliasChoices("problem_id", "id"))
    question: str = ""
    input_output: str | dict[str, Any] = ""
    starter_code: str | None = None
    solutions: str | list[str] | None = None


class AppsTests(Published):
    """What the field input_output of APPS holds."""

    inputs: list[Any] = Field([])
    outputs: list[Any] = Field([])
    fn_name: str | None = None


class LiveCodeBenchRecord(Published):
    """A record of LiveCodeBench's code generation."""

    question_id: int | str
    question_content: str = ""
    public_test_cases: str | list[dict[str, Any]]
    private_test_cases: str | list[dict[str, Any]] | None = None
    starter_code: str | None = None
    metadata: str | dict[str, Any] | None = None


class TestCase(Published):
    """One test of LiveCodeBench."""

    __test__ = False  # not a test case for pytest

    input: str
    output: str
    testtype: str = "stdin"


def with_tests(
    task_of: Callable[[str, Record], Task | ProgramTask], placed: Iterable[tuple[str, Record]]
) -> list[Task | ProgramTask]:
    """The tasks of records, without those that hold no test (some of APPS do): a warning counts and names these.

    TaskError if no record holds one.
    """
    tasks: list[Task | ProgramTask] = []
    empty: list[NoTestError] = []
    for where, record in placed:
        try:
            tasks.append(task_of(where, record))
        except NoTestError as error:
            empty.append(error)
    if empty and not tasks:
        raise empty[0]
    if empty:
        warnings.warn(
            f"{len(empty)} of {len(tasks) + len(empty)} records hold no test and are left out; {empty[0]}"
            + (f"; the last: {empty[-1]}" if len(empty) > 1 else ""),
            stacklevel=3,
        )
    return tasks


def apps_task(where: str, given: Record) -> Task | ProgramTask:
    """The task of one record of APPS. Programs compare as in its harness, but in order: that compares sets of lines."""
    record = checked(AppsRecord, given, where)
    identity = f"Apps/{record.problem_id}"
    held = record.input_output
    held = parsed(held, identity, "input_output") if isinstance(held, str) and held else held
    if not held:
        raise NoTestError(f"{where}: record {identity!r}: input_output holds no test")
    if not isinstance(held, dict):
        raise TaskError(
            f"{where}: record {identity!r}: input_output is {str(held)[:60]!r}, where a JSON record is read"
        )
    tests = checked(AppsTests, held, f"{where}: record {identity!r}: input_output")
    if not tests.inputs:
        raise NoTestError(f"{where}: record {identity!r}: input_output holds no test")
    if len(tests.inputs) != len(tests.outputs):
        raise TaskError(
            f"{where}: record {identity!r}: input_output holds {len(tests.inputs)} inputs but not as many outputs"
        )
    prompt = record.question + (f"\n{record.starter_code}" if record.starter_code else "")
    level = _level(given, ("introductory", "interview", "competition"))
    solution = _first_solution(record.solutions)
    place = f"{where}: record {identity!r}: input_output"
    if name := tests.fn_name:
        for number, args in enumerate(tests.inputs):
            if not isinstance(args, list):
                raise TaskError(f"{place}: inputs.{number} is {str(args)[:60]!r}, where a list of arguments is read")
        calls = tuple(map(_apps_call, tests.inputs, tests.outputs))
        return Task(
            identity, prompt, name, calls, level=level, equality="json", preamble=_preamble(name), reference=solution
        )
    exchanges = tuple(
        Exchange(_as_text(stdin, f"{place}: inputs.{number}"), _as_text(stdout, f"{place}: outputs.{number}"))
        for number, (stdin, stdout) in enumerate(zip(tests.inputs, tests.outputs, strict=True))
    )
    return ProgramTask(
        identity, prompt, exchanges, level=level, atol=1e-8, rtol=1e-5, spaces="words", preamble=_preamble(),
        reference=solution,
    )  # fmt: skip


def _first_solution(solutions: str | list[str] | None) -> str:
    """The first of a record's solutions, which the set keeps as a list or its JSON; "" for none."""
    try:
        found = json.loads(solutions) if isinstance(solutions, str) and solutions else solutions
    except (ValueError, RecursionError):
        return ""
    return str(found[0]) if isinstance(found, list) and found else ""


def _apps_call(args: list[Any], output: Any) -> Call:
    """One test of a function. An output may be wrapped in a list; like the set's harness, accept it both ways."""
    expected = _with_number_keys(output)
    also = (_with_number_keys(output[0]),) if isinstance(output, list) and len(output) == 1 else ()
    return Call(tuple(_with_number_keys(arg) for arg in args), expected, also=also)


def _with_number_keys(value: Any) -> Any:
    """JSON makes texts of a dictionary's keys; undone where all are whole numbers, as the set's harness does."""
    if isinstance(value, dict) and value and all(key.lstrip("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _as_text(value: object, place: str) -> str:
    """A text, a number, or a list of these as lines; TaskError for anything else."""
    lines = value if isinstance(value, list) else [value]
    if not all(isinstance(line, str | int | float) for line in lines):
        raise TaskError(f"{place} is {str(value)[:60]!r}, where a text, a number or a list of these is read")
    return "\n".join(line if isinstance(line, str) else repr(line) for line in lines)


def livecodebench_task(where: str, given: Record) -> Task | ProgramTask:
    """The task of one record of LiveCodeBench, compared as its harness has it."""
    record = checked(LiveCodeBenchRecord, given, where)
    identity = f"LiveCodeBench/{record.question_id}"
    held = [
        *_test_cases(record.public_test_cases, identity, "public_test_cases"),
        *_test_cases(record.private_test_cases or "[]", identity, "private_test_cases"),
    ]
    tests = [checked(TestCase, test, f"{where}: record {identity!r}: test cases") for test in held]
    if not tests:
        raise NoTestError(f"{where}: record {identity!r}: public_test_cases holds no test")
    starter = record.starter_code or ""
    prompt = record.question_content + (f"\n{starter}" if starter else "")
    level = _level(given, ("easy", "medium", "hard"))
    if tests[0].testtype == "functional":
        metadata = record.metadata or "{}"
        metadata = parsed(metadata, identity, "metadata") if isinstance(metadata, str) else metadata
        if not isinstance(metadata, dict) or not isinstance(name := metadata.get("func_name"), str):
            raise TaskError(f"record {identity!r}: metadata lacks func_name, which functional tests need")
        calls = tuple(_livecodebench_call(test, identity) for test in tests)
        return Task(identity, prompt, name, calls, level=level, equality="json", preamble=_preamble(name))
    exchanges = tuple(Exchange(test.input, test.output) for test in tests)
    return ProgramTask(identity, prompt, exchanges, level=level, atol=0.0, spaces="ends", preamble=_preamble())


def _livecodebench_call(test: TestCase, identity: str) -> Call:
    """One argument per line, as JSON; the output as JSON."""
    lines = [line for line in test.input.split("\n") if line.strip()]
    args = tuple(parsed(line, identity, "input") for line in lines)
    return Call(args, parsed(test.output, identity, "output"))


def _test_cases(field: str | list[Record], identity: str, name: str) -> list[Record]:
    """Test cases as the set keeps them: a list, its JSON, or base64 of zlib of a pickled JSON string."""
    if isinstance(field, list):
        return field
    if not field.lstrip().startswith("["):
        try:
            field = pickled_text(_unpacked(base64.b64decode(field, validate=True)))
        except (ValueError, zlib.error) as error:
            raise TaskError(f"record {identity!r}: {name} is neither JSON nor a packed text: {error}") from error
    found = parsed(field, identity, name)
    if not isinstance(found, list) or not all(isinstance(test, dict) for test in found):
        raise TaskError(f"record {identity!r}: {name} is {str(found)[:60]!r}, where a list of test cases is read")
    return found


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, _LARGEST_TESTS)
    if unpacker.unconsumed_tail:
        raise ValueError(f"more than {_LARGEST_TESTS} bytes")
    return unpacked


def pickled_text(data: bytes) -> str:
    """The text that a pickle consists of, read without unpickling; ValueError for a pickle of anything else."""
    operations = [(operation.name, argument) for operation, argument, _ in pickletools.genops(data)]
    for name, _ in operations:
        if name not in _PICKLED_TEXT.split():
            raise ValueError(f"a pickle with the operation {name}, where only text is read")
    texts = [argument for name, argument in operations if name.endswith(("UNICODE", "UNICODE8"))]
    if len(texts) != 1:
        raise ValueError(f"a pickle of {len(texts)} texts, where 1 is read")
    return str(texts[0])


def _level(record: Record, names: Sequence[str]) -> int:
    """The place of the record's difficulty among the set's; 0 where it is none of them."""
    difficulty = record.get("difficulty")
    return names.index(difficulty) if difficulty in names else 0


def _preamble(name: str | None = None) -> str:
    """What the sets' harnesses import before the code (starter code uses List); none of it may stand in for `name`."""
    modules = _HARNESS_MODULES.split()
    starred = "".join(f"from {module} import *\n" for module in (*modules, "builtins"))
    forget = f"globals().pop({name!r}, None)\n" if name else ""
    return f"{starred}import {', '.join(modules)}\nsys.setrecursionlimit(50_000)\n{forget}"


_COMPARISON = """
import copy, math

def _floats(value):
    return isinstance(value, float) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value))

def _close(given, wanted, atol):
    if isinstance(wanted, (list, tuple)):
        return (type(given) is type(wanted) and len(given) == len(wanted)
                and all(_close(g, w, atol) for g, w in zip(given, wanted)))
    try:
        return given == wanted or abs(given - wanted) <= atol + 1e-7 * abs(wanted)
    except TypeError:
        return False

def _same(given, wanted, atol):
    if atol == 0 and _floats(wanted):
        atol = 1e-6
    return given == wanted or (atol != 0 and _close(given, wanted, atol))
"""


class EvalPlusRecord(Published):
    """A record of HumanEvalPlus.jsonl.gz or MbppPlus.jsonl.gz."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    base_input: list[Any]
    plus_input: list[Any] | dict[str, Any] = Field([])
    atol: float | int = 0

    def task(self) -> ScriptTask:
        """The task whose assertions compare with the reference solution."""
        solution = self.prompt + self.canonical_solution
        extra = self.plus_input if isinstance(self.plus_input, list) else []
        script = (
            f"{_COMPARISON}\n_scope = {{}}\nexec({solution!r}, _scope)\n"
            f"for _arguments in {[*self.base_input, *extra]!r}:\n"
            f"    _wanted = _scope[{self.entry_point!r}](*copy.deepcopy(_arguments))\n"
            f"    assert _same(candidate(*_arguments), _wanted, {self.atol!r})\n"
        )
        # MBPP's prompt is a docstring alone, HumanEval's the beginning of the function.
        preamble = self.prompt if f"def {self.entry_point}" in self.prompt else ""
        return ScriptTask(self.task_id, self.prompt, self.entry_point, script, preamble, reference=solution)


class BigCodeBenchRecord(Published):
    """A record of BigCodeBench."""

    task_id: str
    complete_prompt: str
    entry_point: str
    test: str
    canonical_solution: str = ""
    code_prompt: str = ""

    def task(self) -> ScriptTask:
        """The task whose assertions are the record's class of unit tests.

        The tests call the function through the grader, so what it takes and returns must be plain data: `entrostat
        tasks check` names the tasks of which that is not so.
        """
        script = (
            f"import unittest\n{self.test}\n"
            "_tests = unittest.defaultTestLoader.loadTestsFromTestCase(TestCases)\n"
            "_found = unittest.TestResult()\n_tests.run(_found)\n"
            "_faults = _found.failures + _found.errors + [(_, 'expected') for _ in _found.unexpectedSuccesses]\n"
            "if _faults or not _found.testsRun:\n"
            "    raise AssertionError(str(_faults[:1] or 'no test')[-300:])\n"
        )
        head = self.code_prompt or self.complete_prompt
        return ScriptTask(
            self.task_id, self.complete_prompt, self.entry_point, script, reference=head + self.canonical_solution
        )
