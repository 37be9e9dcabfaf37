"""`entrostat audit`: its status tells a build what to do, its errors name file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from entrostat.cli import app

REWARDS = Path(__file__).with_name("rewards.py")
EXAMPLE = {"prompt": "Six times seven?", "answer": "42", "reference": "So \\boxed{42}."}


def run(*arguments):
    return CliRunner().invoke(app, ["audit", *(str(argument) for argument in arguments)])


def test_nothing_found_is_status_0_and_json(tmp_path):
    result = run(f"{REWARDS}:sound_plain", "--most", 1, "--json", "--html", tmp_path / "a.html", "--fail-on", "note")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["findings"] == []
    assert "false positives" in (tmp_path / "a.html").read_text()


def test_a_finding_is_status_3_and_completions_of_files_are_judged(tmp_path):
    (tmp_path / "tasks.jsonl").write_text(json.dumps(EXAMPLE) + "\n")
    (tmp_path / "right.txt").write_text("forty-two")
    arguments = ("--examples", tmp_path / "tasks.jsonl", "--right", tmp_path / "right.txt")
    result = run(f"{REWARDS}:sound_plain", *arguments)
    assert result.exit_code == 3, result.output
    assert "given-right" in result.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON"),
        ("[1]", "line 2: is a list"),
        ('{"prompt": "x"}', "line 2: lacks the field answer"),
        ('{"prompt": 3, "answer": "4"}', "line 2: prompt"),
        ('{"prompt": "x", "answer": "4", "right": "4"}', "line 2: right"),
    ],
)
def test_a_faulty_record_is_one_line_with_its_place(tmp_path, line, message):
    file = tmp_path / "tasks.jsonl"
    file.write_text(f"{json.dumps(EXAMPLE)}\n{line}\n")
    result = run(f"{REWARDS}:sound_plain", "--examples", file)
    assert result.exit_code == 1
    assert f"tasks.jsonl, {message}" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("rewards",), ("a:b", "--kind", "maths"), ("a:b", "--right", "x.txt"), ("a:b", "--timeout", 0)]
)
def test_wrong_usage_is_status_2(arguments):
    assert run(*arguments).exit_code == 2


def test_a_function_that_is_not_there_is_status_1(tmp_path):
    result = run(f"{tmp_path / 'none.py'}:f")
    assert result.exit_code == 1
    assert "is not a file" in result.stderr
