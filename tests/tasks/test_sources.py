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

from entrostat.grading import CodeGrader, Outcome
from entrostat.tasks import Call, Exchange, Expression, ProgramTask, ScriptTask, Task, TaskError
from entrostat.tasks.sources import apps, bigcodebench, humaneval, livecodebench, mbpp, split, tasks_from_jsonl, unique

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


@pytest.fixture(scope="module")
def grader():
    with CodeGrader(workers=1) as grader:
        yield grader


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


OWN = {"id": "x", "entry_point": "f", "tests": [{"args": [], "expected": 1}]}
PAIR = "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
NODE = "class Node:\n    def __init__(self, value):\n        self.value, self.left = value, None\n"


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"test_list": ["assert sum(10, 15) == 25"]}, "def sum(a, b):\n    return a + b", Call),
        (
            {"test_list": ["assert longest([Pair(5, 24), Pair(1, 2)], 2) == 2"]},
            f"{PAIR}def longest(pairs, n):\n    return len({{pair.b for pair in pairs}})",
            Expression,
        ),
        (
            {
                "test_list": ["assert (height(root)) == 2", "assert height(root.left) == 1"],
                "test_setup_code": "root = Node(1)\r\nroot.left = Node(2)\r\n",
            },
            f"{NODE}def height(node):\n    return 1 + height(node.left) if node else 0",
            Expression,
        ),
        (
            {"test_list": ["assert without((1, 2.5, 'a'), int) == [2.5, 'a']"]},
            "def without(items, kind):\n    return [item for item in items if type(item) is not kind]",
            Expression,
        ),
        (
            {"test_list": ["assert apply(lambda x: x + 1, [1, 2]) == [2, 3]"]},
            "def apply(f, items):\n    return [f(item) for item in items]",
            Expression,
        ),
        (
            {"test_list": ["assert size((1, 2)) == sys.getsizeof((1, 2))"]},
            "import sys\ndef size(items):\n    return sys.getsizeof(items)",
            None,
        ),
        (
            {"test_list": ["assert count([1, 1, 2]) == ({1: 2, 2: 1})"]},
            "from collections import Counter\ndef count(items):\n    return Counter(items)",
            Call,
        ),
    ],
)
def test_mbpp_problems_of_every_kind_get_verdicts(grader, written, change, code, kind):
    (task,) = mbpp(written(MBPP | change))
    assert isinstance(task, ScriptTask) if kind is None else isinstance(task.tests[0], kind)
    right, wrong = grader.grade(
        [(task, code), (task, code + "\n    return None\ndef " + task.entry_point + "(*x): pass")]
    )
    assert right.passed, right
    assert wrong.reward == 0.0


def test_the_code_learns_nothing_of_what_an_expression_must_give(grader, written):
    """It has the class that the test builds from, and can look at all that is there when the test runs."""
    (task,) = mbpp(written(MBPP | {"test_list": ["assert longest([Pair(5, 24)]) == 31337"]}))
    code = f"""
import gc, sys
{PAIR}
def longest(pairs):
    frame, seen = sys._getframe(), []
    while frame:
        seen.append(repr(frame.f_locals))
        frame = frame.f_back
    seen += [repr(item) for item in gc.get_objects() if type(item) in (dict, list, tuple)]
    backwards = "73313"
    return int(backwards[::-1]) if any(backwards in text[::-1] for text in seen) else 0
"""
    assert grader.grade([(task, code)])[0].outcome is Outcome.WRONG


def test_without_the_class_that_a_test_builds_the_code_fails(grader, written):
    (task,) = mbpp(written(MBPP | {"test_list": ["assert longest([Pair(5, 24)]) == 1"]}))
    verdict = grader.grade([(task, "def longest(pairs):\n    return 1")])[0]
    assert verdict.outcome is Outcome.RUNTIME_ERROR
    assert "Pair" in verdict.detail


def apps_record(tests, **fields):
    return {"problem_id": 7, "question": "Q.", "input_output": json.dumps(tests), **fields}


@pytest.mark.parametrize(
    ("output", "answer", "passes"),
    [
        (3, "3", True),
        ([3], "3", True),
        ([3], "[3]", True),
        ([[1, 2]], "[1, 2]", True),
        ([[1, 2]], "[(1, 2)]", True),
        ([1, 2], "1", False),
        ([3], "4", False),
        ({"1": 2}, "{1: 2}", True),
        ([{"1": 2}], "{1: 2}", True),
        ({"a": 2}, "{'a': 2}", True),
    ],
)
def test_apps_functions_answer_as_the_set_s_harness_accepts(grader, written, output, answer, passes):
    (task,) = apps(written(apps_record({"fn_name": "solve", "inputs": [[1]], "outputs": [output]})))
    assert grader.grade([(task, f"def solve(x):\n    return {answer}")])[0].passed is passes


def test_apps_starter_code_works_without_its_imports_and_none_of_them_answers_for_it(grader, written):
    starter = "class Solution:\n    def accumulate(self, xs: List[int]) -> List[int]:"
    tests = {"fn_name": "accumulate", "inputs": [[[1, 2]], [[]]], "outputs": [[[1, 3]], [[]]]}
    (task,) = apps(written(apps_record(tests, starter_code=starter, difficulty="competition")))
    assert starter in task.prompt
    assert task.level == 2
    right = f"{starter}\n        return [sum(xs[: i + 1]) for i in range(len(xs))]"
    for code, outcome in (
        (right, Outcome.PASSED),
        (f"{right}\ndef accumulate(xs): return None", Outcome.PASSED),
        ("def accumulate(xs: List[int]): return [*itertools.accumulate(xs)]", Outcome.PASSED),
        ("```python\nx = 1\n```", Outcome.RUNTIME_ERROR),
    ):
        assert grader.grade([(task, code)])[0].outcome is outcome, code


def test_apps_keys_that_json_made_texts_are_numbers_again(grader, written):
    (task,) = apps(written(apps_record({"fn_name": "solve", "inputs": [[{"1": 2, "-3": 4}]], "outputs": [6]})))
    assert grader.grade([(task, "def solve(d):\n    return d[1] + d[-3]")])[0].passed


def test_apps_programs(grader, written):
    tests = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
    (task,) = apps(written(apps_record(tests)))
    assert task.tests == (Exchange("1 2\n", "3\n"), Exchange("3\n4", "7"))
    assert (task.atol, task.rtol, task.spaces) == (1e-8, 1e-5, "words")
    code = "from __future__ import annotations\nprint(sum(map(int, sys.stdin.read().split())))"
    assert grader.grade([(task, f"```python\n{code}\n```")])[0].passed


def test_apps_numbers_of_any_length(written):
    text = '{"fn_name": "solve", "inputs": [[1]], "outputs": [' + "9" * 6000 + "]}"
    (task,) = apps(written(apps_record({}) | {"input_output": text}))
    assert task.tests[0].expected == 10**6000 - 1


def packed(value) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_livecodebench_functions_with_packed_private_tests(grader, written, protocol):
    public = [{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}]
    private = [{"input": '[]\n"a\u2028"', "output": '["a\u2028"]', "testtype": "functional"}]
    text = json.dumps(private, ensure_ascii=False)
    record = {
        "question_id": "3001",
        "question_content": "Append.",
        "starter_code": "class Solution:\n    def add(self, xs: List[int], x: int):\n        ",
        "difficulty": "medium",
        "public_test_cases": json.dumps(public),
        "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(text, protocol))).decode(),
        "metadata": json.dumps({"func_name": "add"}),
    }
    (task,) = livecodebench(written(record))
    assert isinstance(task, Task)
    assert (task.entry_point, task.level) == ("add", 1)
    assert task.tests == (Call(([1, 2], 3), [1, 2, 3]), Call(([], "a\u2028"), ["a\u2028"]))
    code = record["starter_code"].rstrip() + " return xs + [x]"
    assert grader.grade([(task, code)])[0].passed


def test_livecodebench_programs_compare_numbers_exactly(grader, written):
    tests = [{"input": "1\n", "output": "50000000000000001 0.5\n", "testtype": "stdin"}]
    record = {"question_id": "x", "question_content": "q", "public_test_cases": json.dumps(tests)}
    (task,) = livecodebench(written(record))
    assert task.tests == (Exchange("1\n", "50000000000000001 0.5\n"),)
    answers = ["50000000000000001 0.50", "50000000000000000 0.5", "50000000000000001 0.5000001"]
    codes = [f"```python\nprint('{answer}')\n```" for answer in answers]
    assert [v.passed for v in grader.grade([(task, code) for code in codes])] == [True, False, False]


class Bomb:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.parametrize(
    "private",
    [
        packed(Bomb()),
        packed([]),
        packed(b"[]"),
        packed("not JSON"),
        packed("[" * 100_000),
        base64.b64encode(zlib.compress(b"\x80\x04")).decode(),
        base64.b64encode(zlib.compress(b"")).decode(),
        base64.b64encode(b"not zlib").decode(),
        "not base64!",
    ],
)
def test_private_tests_that_are_no_packed_text_are_refused_and_nothing_in_them_runs(written, monkeypatch, private):
    record = {"question_id": "x", "question_content": "q", "public_test_cases": "[]", "private_test_cases": private}
    path = written(record)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    with pytest.raises(TaskError, match="record 'LiveCodeBench/x': private_test_cases is"):
        livecodebench(path)


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
        (mbpp, {"task_id": 5, "text": "t"}, "line 1: record '5': lacks the field test_list"),
        (mbpp, MBPP | {"test_list": []}, "test_list is empty"),
        (mbpp, MBPP | {"test_list": ["assert True"]}, "calls no function"),
        (apps, {"problem_id": 5, "question": "q", "input_output": ""}, "input_output holds no test"),
        (apps, {"problem_id": 5, "input_output": "{"}, "input_output is not JSON"),
        (apps, {"problem_id": 5, "input_output": {"inputs": ["1"], "outputs": []}}, "not as many outputs"),
        (livecodebench, {"question_id": "q", "public_test_cases": "[]"}, "holds no test"),
        (tasks_from_jsonl, {"id": "x", "entry_point": "f"}, "'x': lacks the field tests"),
        (
            tasks_from_jsonl,
            {"id": "x", "entry_point": "f", "tests": []},
            "'x': tests is empty",
        ),
        (
            tasks_from_jsonl,
            {"id": "x", "entry_point": "f", "tests": [{"args": []}]},
            "lacks the field tests.0.expected",
        ),
        (
            tasks_from_jsonl,
            OWN | {"atoll": 1e-6},
            "line 1: record 'x': atoll is not a field of such a task; the fields are",
        ),
        (tasks_from_jsonl, OWN | {"atol": "1e-6"}, "record 'x': atol: .* number"),
        (tasks_from_jsonl, OWN | {"rtol": -1.0}, "record 'x': rtol: .* greater"),
        (tasks_from_jsonl, OWN | {"equality": "loose"}, "record 'x': equality: .*'exact', 'python' or 'json'"),
        (tasks_from_jsonl, OWN | {"tests": [{"args": 1, "expected": 1}]}, "record 'x': tests.0.args: .* list"),
        (
            tasks_from_jsonl,
            OWN | {"tests": [{"args": [], "expcted": 1}]},
            "record 'x': lacks the field tests.0.expected",
        ),
        (tasks_from_jsonl, {"prompt": "p"}, "lacks the field id"),
        (tasks_from_jsonl, {"id": "x", "tests": [{"stdin": 1, "stdout": "1"}]}, "tests.0.stdin: .* string"),
        (tasks_from_jsonl, {"id": "x", "tests": [{"stdin": "", "stdout": ""}], "spaces": "no"}, "spaces: .*'trailing'"),
        (apps, {"problem_id": 5, "input_output": [1]}, "line 1: record '5': input_output"),
        (apps, {"problem_id": 5, "input_output": "[1]"}, "input_output is '.1.', where a JSON record is read"),
        (apps, {"problem_id": 5, "input_output": {"inputs": "1", "outputs": []}}, "input_output: .*inputs: .* list"),
        (
            apps,
            {"problem_id": 5, "input_output": {"inputs": [["1", ["2"]]], "outputs": ["3"]}},
            "inputs.0 is .* list of",
        ),
        (apps, {"problem_id": 5, "input_output": {"inputs": ["1"], "outputs": [None]}}, "outputs.0 is 'None'"),
        (apps, {"problem_id": 5, "input_output": {"fn_name": "f", "inputs": [1], "outputs": [1]}}, "list of arguments"),
        (livecodebench, {"question_id": "q", "public_test_cases": 5}, "public_test_cases"),
        (livecodebench, {"question_id": "q", "public_test_cases": [{"input": 1}]}, "input: .* string"),
        (humaneval, HUMANEVAL | {"test": 5}, "line 1: record 'HumanEval/900': test: .* string"),
        (humaneval, HUMANEVAL | {"test": "assert ("}, "line 1: test is no Python source"),
        (bigcodebench, {"task_id": "BigCodeBench/0"}, "lacks the field complete_prompt"),
    ],
)
def test_a_broken_record_is_named_with_its_field(written, load, record, said):
    with pytest.raises(TaskError, match=said):
        load(written(record))


@pytest.mark.parametrize("name", ["id", "task_id"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("listed", [True, False])
def test_a_file_is_read_in_every_shape(tmp_path, name, encoding, pack, listed):
    record = {name: 7, "tests": [{"stdin": "\u2028", "stdout": "é"}]}
    text = json.dumps([record] if listed else record, ensure_ascii=False)
    (tmp_path / "x.json").write_bytes(pack(text.encode(encoding)))
    assert tasks_from_jsonl(tmp_path / "x.json") == [ProgramTask("7", "", (Exchange("\u2028", "é"),))]


def test_whole_numbers_of_any_length_are_read(tmp_path, grader):
    digits = "9" * 5000
    (tmp_path / "x.jsonl").write_text(json.dumps(OWN).replace('"expected": 1', f'"expected": {digits}'))
    (task,) = tasks_from_jsonl(tmp_path / "x.jsonl")
    assert grader.grade([(task, "def f(): return 10**5000 - 1")])[0].passed


def test_an_id_that_two_records_have_is_refused(written):
    with pytest.raises(TaskError, match="line 2: id is 'x', which an earlier record has"):
        tasks_from_jsonl(written(OWN, OWN))


EVALPLUS = {
    "task_id": "HumanEval/900",
    "prompt": 'def half(x):\n    """Half."""\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "base_input": [[3], [1]],
    "plus_input": [[0.1]],
    "atol": 0,
}


def test_evalplus_inputs_are_answered_by_the_reference(grader, written):
    (task,) = humaneval(written(EVALPLUS))
    codes = ["    return x * 0.5\n", "    return x * 0.5000000001\n", "    return x // 2\n", "    return str(x / 2)\n"]
    verdicts = grader.grade([(task, task.prompt + code) for code in codes])
    assert [verdict.passed for verdict in verdicts] == [True, True, False, False]
    assert grader.grade([(task, task.reference)])[0].passed


MBPP_PLUS = {
    "task_id": 902,
    "prompt": "Write a function to add.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3"],
    "test": "inputs = [[1, 2], [-1, 1]]\nresults = [3, 0]\n"
    "for args, wanted in zip(inputs, results):\n    assert add(*args) == wanted",
}


def test_mbpp_plus_is_graded_by_all_its_tests(grader, written):
    (task,) = mbpp(written(MBPP_PLUS))
    assert [v.passed for v in grader.grade([(task, task.reference), (task, "def add(a, b): return 3")])] == [
        True,
        False,
    ]


BIGCODEBENCH = {
    "task_id": "BigCodeBench/900",
    "complete_prompt": "import math\ndef task_func(x):\n    # Root.\n",
    "instruct_prompt": "Write task_func.",
    "code_prompt": "import math\ndef task_func(x):\n",
    "canonical_solution": "    return math.sqrt(x)\n",
    "entry_point": "task_func",
    "libs": "['math']",
    "test": "import unittest\n\nclass TestCases(unittest.TestCase):\n    def test_one(self):\n"
    "        self.assertEqual(task_func(4), 2)\n    def test_two(self):\n"
    "        self.assertAlmostEqual(task_func(2), 1.41421356)\n",
}


def test_bigcodebench_unit_tests_judge(grader, written):
    (task,) = bigcodebench(written(BIGCODEBENCH))
    wrong = "def task_func(x):\n    return 2\n"
    verdicts = grader.grade([(task, task.reference), (task, wrong)])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.WRONG]


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
