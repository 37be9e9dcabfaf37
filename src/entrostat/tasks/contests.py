"""APPS and LiveCodeBench: records of programming contests, as the sets publish them."""

from __future__ import annotations

import base64
import pickletools
import zlib
from collections.abc import Sequence
from typing import Any

from entrostat.tasks.formats import Exchange, ProgramTask
from entrostat.tasks.records import Record, field, parsed
from entrostat.tasks.task import Call, Task, TaskError

_HARNESS_MODULES = (
    "string re datetime time collections fractions heapq bisect copy math random statistics itertools functools "
    "operator io sys json typing"
)
_PICKLED_TEXT = "PROTO FRAME UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 PUT BINPUT LONG_BINPUT MEMOIZE STOP"
_LARGEST_TESTS = 1 << 30


def apps_task(record: Record) -> Task | ProgramTask:
    """The task of one record of APPS."""
    identity = f"Apps/{field(record, 'problem_id', 'id')}"
    tests = field(record, "input_output")
    tests = parsed(tests, identity, "input_output") if isinstance(tests, str) and tests else tests
    if not tests or not tests.get("inputs"):
        raise TaskError(f"record {identity!r}: input_output holds no test")
    if len(tests["inputs"]) != len(tests.get("outputs", ())):
        raise TaskError(
            f"record {identity!r}: input_output holds {len(tests['inputs'])} inputs but not as many outputs"
        )
    prompt = field(record, "question") + (f"\n{record['starter_code']}" if record.get("starter_code") else "")
    level = _level(record, ("introductory", "interview", "competition"))
    pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
    if name := tests.get("fn_name"):
        calls = tuple(_apps_call(args, output) for args, output in pairs)
        return Task(identity, prompt, name, calls, level=level, equality="json", preamble=_preamble(name))
    exchanges = tuple(Exchange(_as_text(stdin), _as_text(stdout)) for stdin, stdout in pairs)
    return ProgramTask(identity, prompt, exchanges, level=level, atol=1e-6, preamble=_preamble())


def _apps_call(args: list[Any], output: Any) -> Call:
    """One test of a function. An output may stand in a list of its own; like the set's harness, accept it both ways."""
    expected = _with_number_keys(output)
    also = (_with_number_keys(output[0]),) if isinstance(output, list) and len(output) == 1 else ()
    return Call(tuple(_with_number_keys(arg) for arg in args), expected, also=also)


def _with_number_keys(value: Any) -> Any:
    """JSON makes texts of a dictionary's keys; undone where all are whole numbers, as the set's harness does."""
    if isinstance(value, dict) and value and all(key.lstrip("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _as_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(value)


def livecodebench_task(record: Record) -> Task | ProgramTask:
    """The task of one record of LiveCodeBench."""
    identity = f"LiveCodeBench/{field(record, 'question_id')}"
    public = _test_cases(field(record, "public_test_cases"), identity, "public_test_cases")
    tests = public + _test_cases(record.get("private_test_cases") or "[]", identity, "private_test_cases")
    if not tests:
        raise TaskError(f"record {identity!r}: public_test_cases holds no test")
    starter = record.get("starter_code") or ""
    prompt = field(record, "question_content") + (f"\n{starter}" if starter else "")
    level = _level(record, ("easy", "medium", "hard"))
    if field(tests[0], "testtype") == "functional":
        metadata = record.get("metadata") or "{}"
        metadata = parsed(metadata, identity, "metadata") if isinstance(metadata, str) else metadata
        if not (name := metadata.get("func_name")):
            raise TaskError(f"record {identity!r}: metadata lacks func_name, which functional tests need")
        calls = tuple(_livecodebench_call(test, identity) for test in tests)
        return Task(identity, prompt, name, calls, level=level, equality="json", preamble=_preamble(name))
    exchanges = tuple(Exchange(field(test, "input"), field(test, "output")) for test in tests)
    return ProgramTask(identity, prompt, exchanges, level=level, atol=0.0, preamble=_preamble())


def _livecodebench_call(test: Record, identity: str) -> Call:
    """One argument a line, as JSON; the output as JSON."""
    lines = [line for line in field(test, "input").split("\n") if line.strip()]
    args = tuple(parsed(line, identity, "input") for line in lines)
    return Call(args, parsed(field(test, "output"), identity, "output"))


def _test_cases(field: str | list[Record], identity: str, name: str) -> list[Record]:
    """Test cases as the set keeps them: a list, its JSON, or base64 of zlib of a pickled JSON string."""
    if isinstance(field, list):
        return field
    if not field.lstrip().startswith("["):
        try:
            field = pickled_text(_unpacked(base64.b64decode(field, validate=True)))
        except (ValueError, zlib.error) as error:
            raise TaskError(f"record {identity!r}: {name} is neither JSON nor a packed text: {error}") from error
    found: list[Record] = parsed(field, identity, name)
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
