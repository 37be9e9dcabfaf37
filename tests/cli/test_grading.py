"""`grade`, `eval` and `compare`: what is scored, what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from entrostat.cli.app import app

RIGHT, WRONG = "def f(x):\n    return x * 2", "def f(x):\n    return x"
NUMPY = {
    "task_id": "HumanEval/900",
    "prompt": 'def half(x):\n    """Half of x."""\n',
    "entry_point": "half",
    "test": "import numpy as np\n\ndef check(candidate):\n    assert np.allclose(candidate(3.0), 1.5)\n",
}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def write(tmp_path):
    def write(name, records):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, records)))
        return path

    return write


@pytest.fixture
def tasks(write):
    return write(
        "tasks.jsonl",
        [{"id": name, "entry_point": "f", "tests": [{"args": [2], "expected": 4}]} for name in ("a", "b", "c")],
    )


def samples_of(**codes):
    return [{"task_id": name, "solution": code} for name, own in codes.items() for code in own]


def test_tasks_without_samples_and_uneven_numbers_of_samples_are_told(write, tasks):
    samples = write("samples.jsonl", samples_of(a=[RIGHT, WRONG], b=[RIGHT]))
    command = ("grade", samples, "--tasks", "jsonl", "--data", tasks, "--k", "1,2")
    answer = json.loads(run(*command, "--json").stdout)
    assert answer["tasks_without_samples"] == ["c"]
    assert (answer["scores"]["pass@1"]["problems"], answer["scores"]["pass@2"]["problems"]) == (2, 1)
    said = " ".join(run(*command).stdout.split())
    assert "pass@2 is over 1 of 2 tasks" in said
    assert "1 of 3 tasks have no samples and are in no score: c" in said
    assert "tasks have 1 to 2 samples" in said
    assert "pass^2" in said
    assert "pass^1" not in said


def test_a_k_that_no_task_reaches_is_refused_before_anything_is_graded(write, tasks):
    samples = write("samples.jsonl", samples_of(a=[RIGHT, WRONG]))
    result = run("grade", samples, "--tasks", "jsonl", "--data", tasks, "--k", "1,5,9")
    assert result.exit_code == 1
    assert "k is 5, 9, but no task has more than 2 samples" in result.stderr
    assert not samples.with_suffix(".verdicts.jsonl").exists()


def test_a_task_that_needs_a_package_is_named_with_the_remedy_and_graded_with_it(write):
    samples = write("samples.jsonl", [{"task_id": NUMPY["task_id"], "completion": "    return x / 2\n"}] * 3)
    command = ("grade", samples, "--tasks", "humaneval", "--data", write("set.jsonl", [NUMPY]), "--timeout", 9)
    without = run(*command)
    assert without.exit_code == 1
    assert without.stdout.count("cannot be graded, whatever the code") == 1
    assert "give --packages numpy" in without.stdout
    assert "same command again" not in without.stdout
    answer = json.loads(run(*command, "--packages", "numpy", "--json").stdout)
    assert (answer["outcomes"], answer["unfit_tasks"]) == ({"passed": 3}, {})


def test_a_package_that_is_not_installed_is_refused(write, tasks):
    result = run(
        "grade", write("s.jsonl", samples_of(a=[RIGHT])), "--tasks", "jsonl", "--data", tasks, "--packages", "nowhere"
    )
    assert result.exit_code == 2
    assert "nowhere" in result.output


def test_a_tolerance_is_the_options_or_the_tasks(write):
    record = {"id": "a", "entry_point": "f", "tests": [{"args": [2], "expected": 4.0}]}
    samples = write("samples.jsonl", [{"task_id": "a", "solution": "def f(x):\n    return 4.00001"}])
    command = ("grade", samples, "--tasks", "jsonl", "--json")
    for tolerance, option, outcome in (
        ({}, (), "wrong"),
        ({}, ("--rtol", 1e-5), "passed"),
        ({"atol": 1e-4}, (), "passed"),
        ({"atol": 1e-4}, ("--atol", 1e-9), "wrong"),
    ):
        result = run(*command, "--data", write("tasks.jsonl", [record | tolerance]), *option)
        assert json.loads(result.stdout)["outcomes"] == {outcome: 1}


def test_a_tolerance_for_scripts_alone_is_refused(write):
    tasks = write("tasks.jsonl", [{"id": "a", "entry_point": "f", "script": "assert f(2) == 4"}])
    result = run("grade", write("s.jsonl", samples_of(a=[RIGHT])), "--tasks", "jsonl", "--data", tasks, "--atol", 1)
    assert result.exit_code == 2


def verdicts(rates, n=10):
    return [
        {"task_id": f"t{task}", "outcome": "passed" if sample < c else "wrong"}
        for task, c in enumerate(rates)
        for sample in range(n)
    ]


def test_files_of_verdicts_are_compared_by_pairs_of_tasks(write):
    before = write("before.jsonl", verdicts([0, 2, 4, 6, 8, 1, 3, 5, 7, 9, 2, 4]))
    after = write("after.jsonl", verdicts([1, 3, 5, 7, 9, 2, 4, 6, 8, 9, 3, 5, 7]))
    answer = json.loads(run("compare", before, after, "--json").stdout)
    baseline, better = answer["rows"]
    assert answer["tasks"] == 12
    assert baseline["difference"] is None
    assert better["difference"] == pytest.approx(11 / 120)
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert better["p"] < 1e-4
    assert any("1 tasks are not in all of them and are left out: t12" in note for note in answer["notes"])
    same = json.loads(
        run("compare", before, write("copy.jsonl", verdicts([0, 2, 4, 6, 8, 1, 3, 5, 7, 9, 2, 4])), "--json").stdout
    )
    assert same["rows"][1]["difference"] == 0
    assert run("compare", before, after, "--k", 11).exit_code == 1


def test_compare_refuses_what_is_no_verdict(write, tasks):
    assert run("compare", tasks, write("v.jsonl", verdicts([1, 2]))).exit_code == 1
    assert run("compare", write("v.jsonl", verdicts([1])), "nowhere").exit_code == 2
    other = write("w.jsonl", [{"task_id": "other", "outcome": "wrong"}])
    assert run("compare", write("v.jsonl", verdicts([1])), other).exit_code == 2


def test_the_schema_is_printed_and_names_every_field():
    text = run("tasks", "--schema").stdout
    assert {"FunctionRecord", "ScriptRecord", "ProgramRecord"} <= set(json.loads(text)["$defs"])
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    for record in json.loads(text)["$defs"].values():
        assert [name for name in record["properties"] if f"`{name}`" not in page] == []


def test_the_records_on_the_page_are_read_and_their_solutions_pass(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    records = [json.loads(block.partition("```")[0]) for block in page.split("```json\n")[1:]]
    (tmp_path / "tasks.json").write_text(json.dumps(records))
    answer = json.loads(run("tasks", "check", tmp_path / "tasks.json", "--json").stdout)
    assert answer == {"tasks": 3, "checked": 3, "failed": {}}


def test_check_names_what_its_own_solution_does_not_pass(write):
    record = {"entry_point": "f", "tests": [{"args": [2], "expected": 4}]}
    file = write(
        "tasks.jsonl",
        [
            record | {"id": "good", "solution": RIGHT},
            record | {"id": "bad", "solution": WRONG},
            record | {"id": "bare"},
            {"id": "unfit", "entry_point": "f", "script": "import nowhere\nf(1)", "solution": RIGHT},
        ],
    )
    result = run("tasks", "check", file)
    assert result.exit_code == 1
    assert "bad: wrong: test 1 of 1" in result.stdout
    assert "unfit: unfit task" in result.stdout
    assert "1 of 3 reference solutions pass; 1 tasks have none" in " ".join(result.stdout.split())
