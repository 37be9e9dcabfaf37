"""Records written anew with every field that each published set has, in the types in which it is published."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest

from entrostat.grading import CodeGrader
from entrostat.tasks import Call, Exchange, ProgramTask, ScriptTask, Task, TaskError
from entrostat.tasks.sources import apps, bigcodebench, humaneval, livecodebench, mbpp


def packed(tests) -> str:
    """LiveCodeBench's private tests: base64 of zlib of a pickle of their JSON."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode("utf-8")


def case(given: str, wanted: str, kind: str) -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": kind}


ZEROS = "0" * 4500  # more digits than Python converts at once
# set, the loader, a record, a right solution, a wrong one, the fields that a record cannot do without
SHAPES = {
    "HumanEval+ of EvalPlus": (
        humaneval,
        {
            "task_id": "HumanEval/901",
            "prompt": "from typing import List\n\n\ndef twice(xs: List[int]) -> List[int]:\n    '''Twice each.'''\n",
            "contract": "\n    assert isinstance(xs, list), 'invalid inputs' # $_CONTRACT_$\n",
            "entry_point": "twice",
            "canonical_solution": "\n    return [2 * x for x in xs]\n\n",
            "base_input": [[[1, 2]], [[]]],
            "plus_input": [[[10**30, -1]], [list(range(3000))]],
            "atol": 0,
        },
        "def twice(xs):\n    return [x + x for x in xs]",
        "def twice(xs):\n    return [2 * x for x in xs[:100]]",
        {"task_id", "prompt", "entry_point", "canonical_solution", "base_input"},
    ),
    "HumanEval+ of the hub": (
        humaneval,
        {
            "task_id": "HumanEval/902",
            "prompt": "\ndef root(x: float) -> float:\n    '''Its square root.'''\n",
            "canonical_solution": "    return x ** 0.5\n",
            "entry_point": "root",
            "test": "def assertion(out, exp, atol):\n    assert abs(out - exp) <= (atol or 1e-6)\n\n"
            "def check(candidate):\n    inputs = [[4.0], [2.0]]\n    results = [2.0, 1.4142135623730951]\n"
            "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n        assertion(candidate(*inp), exp, 0)\n",
        },
        "import math\ndef root(x):\n    return math.sqrt(x)",
        "def root(x):\n    return x / 2",
        {"task_id", "prompt", "entry_point", "test"},
    ),
    "MBPP+ of EvalPlus": (
        mbpp,
        {
            "task_id": "Mbpp/903",
            "prompt": '"""\nWrite a function to add.\nassert add(1, 2) == 3\n"""\n',
            "contract": "\n  assert isinstance(a, int) # $_CONTRACT_$\n",
            "entry_point": "add",
            "canonical_solution": "\ndef add(a, b):\n  return a + b\n",
            "assertion": "\nassert add(1, 2) == 3\n",
            "base_input": [[1, 2]],
            "plus_input": {},
            "atol": 0,
        },
        "def add(a, b):\n    return b + a",
        "def add(a, b):\n    return a - b",
        {"task_id", "prompt", "entry_point", "canonical_solution", "base_input"},
    ),
    "MBPP+ of the hub": (
        mbpp,
        {
            "task_id": 904,
            "code": "def add(a, b):\n    return a + b",
            "prompt": "Write a function to add.",
            "source_file": "Benchmark Questions Verification V2.ipynb",
            "test_imports": [],
            "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
            "test": "def assertion(out, exp, atol):\n    assert out == exp\n\n"
            "inputs = [[1, 2], [5, -5]]\nresults = [3, 0]\n"
            "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(add(*inp), exp, 0)\n",
        },
        "def add(a, b):\n    return b + a",
        "def add(a, b):\n    return 3",
        {"task_id", "prompt", "test_list", "test", "code"},
    ),
    "MBPP": (
        mbpp,
        {
            "task_id": 905,
            "text": "Write a function to add.",
            "code": "def add(a, b):\r\n  return a + b",
            "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(0, 1) == 1"],
            "test_setup_code": "",
            "challenge_test_list": [],
        },
        "def add(a, b):\n    return b + a",
        "def add(a, b):\n    return 3",
        {"task_id", "text", "test_list"},
    ),
    "BigCodeBench": (
        bigcodebench,
        {
            "task_id": "BigCodeBench/906",
            "complete_prompt": "import random\nimport itertools\n\ndef task_func(numbers=list(range(1, 3))):\n"
            "    '''The mean.'''\n",
            "instruct_prompt": "The mean.\nWrite self-contained code starting with:\n```\nimport random\n```",
            "canonical_solution": "    return sum(numbers) / len(numbers)\n",
            "code_prompt": "import random\nimport itertools\ndef task_func(numbers=list(range(1, 3))):\n",
            "test": "import unittest\nfrom unittest.mock import patch\nclass TestCases(unittest.TestCase):\n"
            "    def setUp(self):\n        self.numbers = [1, 2, 3]\n"
            "    def test_default(self):\n        self.assertAlmostEqual(task_func(), 1.5)\n"
            "    def test_given(self):\n        self.assertIsInstance(task_func(self.numbers), float)\n"
            "    def test_empty(self):\n        with self.assertRaises(Exception):\n            task_func([])\n",
            "entry_point": "task_func",
            "doc_struct": '{"description": ["The mean."], "notes": [], "params": [], "raises": []}',
            "libs": "['random', 'itertools']",
        },
        "def task_func(numbers=(1, 2)):\n    return sum(numbers) / len(numbers)",
        "def task_func(numbers=(1, 2)):\n    return 1.5",
        {"task_id", "complete_prompt", "test", "entry_point"},
    ),
    "APPS, a program": (
        apps,
        {
            "problem_id": 907,
            "question": "Add two numbers.\n\n-----Input-----\n\nTwo lines.\n",
            "solutions": json.dumps(["print(int(input()) + int(input()))", "import sys\n"]),
            "input_output": json.dumps({"inputs": ["1\n2\n", f"1{ZEROS}0\n1\n"], "outputs": ["3\n", f"1{ZEROS}1\n"]}),
            "difficulty": "interview",
            "url": "https://codeforces.com/problemset/problem/1/A",
            "starter_code": "",
        },
        "print(sum(int(input()) for _ in range(2)))",
        "print(3)",
        {"problem_id", "input_output"},
    ),
    "APPS, a function": (
        apps,
        {
            "problem_id": 908,
            "question": "Given an array, add.",
            "solutions": "",
            "input_output": json.dumps({"fn_name": "add", "inputs": [[[1, 2], 3], [[], 0]], "outputs": [[6], [0]]}),
            "difficulty": "introductory",
            "url": "https://leetcode.com/problems/add/",
            "starter_code": "\nclass Solution:\n    def add(self, xs: List[int], x: int) -> int:\n        ",
        },
        "class Solution:\n    def add(self, xs: List[int], x: int) -> int:\n        return sum(xs, x)",
        "class Solution:\n    def add(self, xs, x):\n        return sum(xs)",
        {"problem_id", "input_output"},
    ),
    "LiveCodeBench, a program": (
        livecodebench,
        {
            "question_title": "A. Sum",
            "question_content": "Add.\n\nInput\n\nOne line.\n",
            "platform": "codeforces",
            "question_id": "1873_A",
            "contest_id": "1873",
            "contest_date": "2023-08-21T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": json.dumps([case("1 2\n", "3\n", "stdin")]),
            "private_test_cases": packed([case(" ".join(["7"] * 200_000) + "\n", "1400000", "stdin")]),
            "metadata": "{}",
        },
        "print(sum(map(int, input().split())))",
        "print(3)",
        {"question_id", "public_test_cases"},
    ),
    "LiveCodeBench, a function": (
        livecodebench,
        {
            "question_title": "add",
            "question_content": "Add.",
            "platform": "leetcode",
            "question_id": "2777",
            "contest_id": "weekly-contest-1",
            "contest_date": "2023-07-08T00:00:00",
            "starter_code": "class Solution:\n    def add(self, xs: List[int], name: str) -> List[int]:\n        ",
            "difficulty": "hard",
            "public_test_cases": json.dumps([case('[1, 2]\n"a"', "[1, 2, 1]", "functional")]),
            "private_test_cases": packed(
                [
                    case('[]\n""', "[0]", "functional"),
                    case(f'{[1] * 50_000}\n"b"', f"{[1] * 50_001}", "functional"),
                ]
            ),
            "metadata": json.dumps({"func_name": "add"}),
        },
        "class Solution:\n    def add(self, xs, name):\n        return [*xs, len(name)]",
        "class Solution:\n    def add(self, xs, name):\n        return [*xs, 1]",
        {"question_id", "public_test_cases", "metadata"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def grader():
    with CodeGrader(workers=2, timeout=5.0) as grader:
        yield grader


@pytest.fixture
def written(tmp_path):
    def write(*records) -> str:
        path = tmp_path / "set.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(path)

    return write


def test_right_solutions_pass_and_wrong_ones_fail(grader, written):
    pairs, expected = [], []
    for name, (load, record, right, wrong, _) in SHAPES.items():
        (task,) = load(written(record))
        pairs += [(task, f"```python\n{right}\n```"), (task, wrong)]
        expected += [(name, True), (name, False)]
        if task.reference:
            pairs.append((task, task.reference))
            expected.append((f"{name}, its own solution", True))
    verdicts = grader.grade(pairs)
    assert [(name, v.passed) for (name, _), v in zip(expected, verdicts, strict=True)] == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_a_field_that_need_not_be_there_may_be_null_or_absent(written, shape):
    load, record, _, _, needed = SHAPES[shape]
    for name in set(record) - needed:
        absent = load(written({key: value for key, value in record.items() if key != name}))
        assert load(written(record | {name: None})) == absent, name
        assert type(absent[0]) in (Task, ScriptTask, ProgramTask)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_field_that_must_be_there_is_named_where_it_is_null_or_absent(written, shape):
    load, record, _, _, needed = SHAPES[shape]
    for name in needed - {"base_input", "test", "code", "metadata", "prompt", "input_output"}:
        for broken in ({key: value for key, value in record.items() if key != name}, record | {name: None}):
            with pytest.raises(TaskError, match=name):
                load(written(broken))


@pytest.mark.parametrize("shape", SHAPES)
def test_fields_that_later_versions_add_change_nothing(written, shape):
    load, record, *_ = SHAPES[shape]
    assert load(written(record | {"_id": 7, "q_idx": None, "score": 0.5})) == load(written(record))


def test_records_of_apps_without_a_test_are_left_out_and_counted(written):
    record = SHAPES["APPS, a program"][1]
    path = written(
        record, record | {"problem_id": 1, "input_output": ""}, record | {"problem_id": 2, "input_output": "{}"}
    )
    with pytest.warns(UserWarning, match=r"2 of 3 records hold no test and are left out; .*Apps/1.*Apps/2"):
        (task,) = apps(path)
    assert task.id == "Apps/907"
    with pytest.raises(TaskError, match=r"Apps/1'.*holds no test"):
        apps(written(record | {"problem_id": 1, "input_output": ""}))


def test_private_tests_keep_their_text_and_order(written):
    load, record, *_ = SHAPES["LiveCodeBench, a program"]
    tests = [case(f"é\u2028{i}\n", f"{i}\n", "stdin") for i in range(3)]
    (task,) = load(written(record | {"private_test_cases": packed(tests)}))
    assert task.tests == (Exchange("1 2\n", "3\n"), *(Exchange(f"é\u2028{i}\n", f"{i}\n") for i in range(3)))
    (task,) = load(written(record | {"private_test_cases": json.dumps(tests)}))
    assert len(task.tests) == 4
    function = SHAPES["LiveCodeBench, a function"][1]
    (task,) = load(written(function | {"private_test_cases": packed([])}))
    assert task.tests == (Call(([1, 2], "a"), [1, 2, 1]),)


def test_a_table_in_parquet_is_refused_with_the_way_to_write_it_as_json(tmp_path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1\x15\x04PAR1")
    with pytest.raises(TaskError, match=r"Parquet table.*to_json"):
        bigcodebench(tmp_path / "set.parquet")
