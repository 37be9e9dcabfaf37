"""Published schemas become tasks with the tests that the records hold; broken records are named."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.tasks import Call, Exchange, ProgramTask, ScriptTask, Task, TaskError
from entrostat.tasks.sources import apps, humaneval, livecodebench, mbpp, split, tasks_from_jsonl, unique

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": "from typing import List\n\ndef twice(xs: List[int]) -> List[int]:\n    '''Double each.'''\n",
    "entry_point": "twice",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate([1]) == [2]\n    assert True\n"
    "    assert candidate(xs=[]) == [], 'empty'\n",
}
MBPP = {
    "task_id": 901,
    "text": "Write a function to add.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1.5) == 0.5"],
    "test_setup_code": "",
}


@pytest.fixture
def written(tmp_path):
    def write(*records, name="set.jsonl"):
        path = tmp_path / name
        text = "\n".join(json.dumps(record) for record in records).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return path

    return write


def test_humaneval_assertions_become_calls_and_the_prompt_a_preamble(written):
    (task,) = humaneval(written(HUMANEVAL, name="set.jsonl.gz"))
    assert task == Task(
        "HumanEval/900",
        HUMANEVAL["prompt"],
        "twice",
        (Call(([1],), [2]), Call((), [], {"xs": []})),
        equality="python",
        preamble=HUMANEVAL["prompt"],
    )


@pytest.mark.parametrize(
    "statement",
    [
        "assert abs(candidate(1) - 2) < 1e-6",
        "assert candidate([1])",
        "assert not candidate([1])",
        "assert candidate(candidate([1])) == [4]",
        "assert candidate(*[[1]]) == [2]",
        "assert candidate([1]) is None",
        "assert 0 < candidate([1]) < 2",
        "assert candidate([x for x in range(3)]) == [0, 2, 4]",
        "for n in range(3): assert candidate([n]) == [2 * n]",
        "import math",
    ],
)
def test_what_is_no_plain_equality_stays_a_script(written, statement):
    record = HUMANEVAL | {"test": f"def check(candidate):\n    assert candidate([1]) == [2]\n    {statement}\n"}
    (task,) = humaneval(written(record))
    assert isinstance(task, ScriptTask)
    assert task.script.endswith("check(twice)\n")


def test_mbpp_shows_the_first_test_only(written):
    (task,) = mbpp(written(MBPP))
    assert isinstance(task, Task)
    assert task.entry_point == "add"
    assert task.tests == (Call((1, 2), 3), Call((-1, 1.5), 0.5))
    assert "add(1, 2)" in task.prompt
    assert "add(-1" not in task.prompt


def test_mbpp_sanitized_and_assertions_around_builtins(written):
    record = {key: value for key, value in MBPP.items() if key not in ("text", "test_setup_code")}
    record |= {
        "prompt": "p",
        "test_imports": ["import math"],
        "test_list": ["assert set(add([1], [2])) == set([1, 2])"],
    }
    (task,) = mbpp(written(record))
    assert isinstance(task, ScriptTask)
    assert task.entry_point == "add"
    assert task.script.startswith("import math\n")


@pytest.mark.parametrize("outputs", [[3, 7], [[3], [7]]])
def test_apps_functions_with_outputs_kept_either_way(written, outputs):
    tests = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": outputs}
    record = {"problem_id": 7, "question": "Add.", "input_output": json.dumps(tests), "difficulty": "competition"}
    (task,) = apps(written(record))
    assert task == Task("Apps/7", "Add.", "add", (Call((1, 2), 3), Call((3, 4), 7)), level=2, equality="json")


def test_apps_programs(written):
    tests = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
    (task,) = apps(written({"problem_id": 8, "question": "Add.", "input_output": json.dumps(tests)}))
    assert task == ProgramTask("Apps/8", "Add.", (Exchange("1 2\n", "3\n"), Exchange("3\n4", "7")), atol=1e-6)


def test_livecodebench_functions_with_packed_private_tests(written):
    public = [{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}]
    private = [{"input": '[]\n"a"', "output": '["a"]', "testtype": "functional"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(private)))).decode()
    record = {
        "question_id": "3001",
        "question_content": "Append.",
        "starter_code": "class Solution:\n    def add(self, xs, x):\n        ",
        "difficulty": "medium",
        "public_test_cases": json.dumps(public),
        "private_test_cases": packed,
        "metadata": json.dumps({"func_name": "add"}),
    }
    (task,) = livecodebench(written(record))
    assert isinstance(task, Task)
    assert (task.entry_point, task.level) == ("add", 1)
    assert task.tests == (Call(([1, 2], 3), [1, 2, 3]), Call(([], "a"), ["a"]))


def test_livecodebench_programs(written):
    tests = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    (task,) = livecodebench(
        written({"question_id": "x", "question_content": "q", "public_test_cases": json.dumps(tests)})
    )
    assert task == ProgramTask("LiveCodeBench/x", "q", (Exchange("1\n", "2\n"),), atol=1e-6)


class Bomb:
    def __reduce__(self):
        return (eval, ("1/0",))


def test_a_pickle_that_would_run_something_is_refused(written):
    packed = base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode()
    record = {"question_id": "x", "question_content": "q", "public_test_cases": "[]", "private_test_cases": packed}
    with pytest.raises(TaskError, match=r"builtins\.eval"):
        livecodebench(written(record))


def test_own_records_become_each_kind_of_task(written):
    path = written(
        {"id": "a", "prompt": "p", "entry_point": "f", "tests": [{"args": [1], "expected": [2], "kwargs": {"k": 1}}]},
        {"id": "b", "entry_point": "f", "script": "assert f(1) == 2", "level": 3},
        {"id": "c", "tests": [{"stdin": "1", "stdout": "2"}], "atol": 0.1},
    )
    assert tasks_from_jsonl(path) == [
        Task("a", "p", "f", (Call((1,), [2], {"k": 1}),), equality="json"),
        ScriptTask("b", "", "f", "assert f(1) == 2", level=3),
        ProgramTask("c", "", (Exchange("1", "2"),), atol=0.1),
    ]


@pytest.mark.parametrize(
    ("load", "record", "said"),
    [
        (humaneval, {"task_id": "h"}, "'h': lacks the field prompt"),
        (mbpp, {"task_id": 5}, "'5': lacks the field test_list"),
        (mbpp, MBPP | {"test_list": []}, "test_list is empty"),
        (mbpp, MBPP | {"test_list": ["assert True"]}, "calls no function"),
        (apps, {"problem_id": 5, "question": "q", "input_output": ""}, "input_output holds no test"),
        (livecodebench, {"question_id": "q", "public_test_cases": "[]"}, "holds no test"),
        (tasks_from_jsonl, {"id": "x", "entry_point": "f"}, "'x': lacks the field tests"),
        (tasks_from_jsonl, {"id": "x", "entry_point": "f", "tests": []}, "'x': tests is empty"),
        (tasks_from_jsonl, {"id": "x", "entry_point": "f", "tests": [{"args": []}]}, "lacks the field expected"),
    ],
)
def test_a_broken_record_is_named_with_its_field(written, load, record, said):
    with pytest.raises(TaskError, match=said):
        load(written(record))


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text("{")
    for path in (tmp_path / "x.jsonl", tmp_path / "missing.jsonl"):
        with pytest.raises(TaskError, match=path.name):
            tasks_from_jsonl(path)


def numbered(count):
    return [Task(f"t{i}", f"prompt {i}", "f", (Call((i,), i),)) for i in range(count)]


def test_duplicates_go_whatever_their_ids_and_the_first_stays():
    tasks = numbered(3)
    again = Task("other", "prompt 1", "f", (Call((1,), 1),))
    assert [task.id for task in unique([tasks[0], tasks[1], again, tasks[2]])] == ["t0", "t1", "t2"]


@given(st.integers(), st.permutations(range(60)))
def test_a_split_depends_on_content_and_seed_alone(seed, order):
    tasks = numbered(60)
    shares = {"train": 0.5, "select": 0.2, "report": 0.3}
    splits = split(tasks, shares, seed)
    assert sorted(task.id for part in splits.values() for task in part) == sorted(task.id for task in tasks)
    shuffled = split([tasks[i] for i in order][:40], shares, seed)
    for name in shares:
        assert {task.id for task in shuffled[name]} <= {task.id for task in splits[name]}


def test_splits_have_about_their_shares_and_differ_by_seed():
    tasks = numbered(2000)
    first, second = (split(tasks, {"train": 0.8, "report": 0.2}, seed) for seed in (0, 1))
    assert abs(len(first["train"]) / 2000 - 0.8) < 0.04
    assert first["report"] != second["report"]


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(TaskError, match="add up to 1"):
        split([], {"train": 0.5}, 0)


def test_the_content_hash_knows_order_where_it_matters_only():
    def hashed(value):
        return Task("t", "", "f", (Call((value,), None),)).content_hash()

    assert hashed({"a", "b", "c"}) == hashed({"c", "b", "a"})
    assert hashed([1, 2]) != hashed([2, 1]) != hashed((2, 1))
    assert len({hashed(value) for value in (1, True, 1.0, "1", [1], (1,), {1}, 10**5000)}) == 8
