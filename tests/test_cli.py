"""The command line: bad input ends in one plain line that names the field and the remedy, and nothing is touched."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

import entrostat
from entrostat.cli import app
from entrostat.engine.policy import load_policy

SMALL = {
    "name": "small",
    "threads": 1,
    "tasks": {"train": 4, "select": 2, "report": 2},
    "rollout": {"prompts": 2, "samples": 2},
    "evaluation": {"samples": 1, "pass_at": [1]},
    "campaign": {"steps": 2},
}


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    return file


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["demo"],
        ["train"],
        ["chain"],
        ["report"],
        ["tokens"],
        ["score"],
        ["grade"],
        ["eval"],
        ["audit"],
        ["compare"],
        ["tasks"],
        ["tasks", "check"],
    ],
)
def test_help_shows_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "entrostat" in result.output.partition("Example:")[2] or not command


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_of_all_commands_is_never_cut(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(app, ["-h"], terminal_width=columns).output
    assert "..." not in shown.partition("Commands:")[2]
    assert "the same command again resumes a run that was killed." in " ".join(shown.split())


def test_an_example_can_be_copied(monkeypatch):
    shown = CliRunner().invoke(app, ["report", "-h"], terminal_width=60).output
    assert "    entrostat report runs/demo/reinforce runs/demo/grpo-id --out demo.html\n" in shown


def test_version():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"entrostat {entrostat.__version__}\n")


def test_train_writes_a_run_and_a_report_and_answers_in_json(recipe, tmp_path):
    result = run("train", recipe, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["runs"][0]["steps"] == 2
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_report_takes_every_run_below_a_folder_and_each_once(tmp_path, monkeypatch):
    for name in ("b", "a/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").touch()
    shown = []
    monkeypatch.setattr("entrostat.cli.reporting.show_runs", lambda runs, *_: shown.extend(runs))
    assert run("report", tmp_path, tmp_path / "b", tmp_path / "a/../b").exit_code == 0
    assert shown == [tmp_path / "a/deep", tmp_path / "b"]
    (tmp_path / "empty").mkdir()
    assert "not a run folder" in run("report", tmp_path / "empty").output


@pytest.mark.parametrize(
    ("sent", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_a_run_and_says_how_to_go_on(recipe, tmp_path, sent, status, word):
    command = [
        sys.executable,
        "-m",
        "entrostat",
        "train",
        recipe,
        "--out",
        tmp_path / "run",
        "--set",
        "campaign.steps=500",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run/steps.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(sent)
        _, told = process.communicate()
    assert process.returncode == status, told
    assert f"{word}; the same command again resumes the run" in told


def test_a_run_may_leave_pass_at_1_out(recipe, tmp_path):
    settings = ("--set", "evaluation.samples=2", "--set", "evaluation.pass_at=[2]", "--set", "campaign.steps=1")
    result = run("train", recipe, "--out", tmp_path / "run", *settings)
    assert result.exit_code == 0, result.output


def test_an_out_folder_inside_a_file_is_refused_in_one_line(recipe):
    result = run("train", recipe, "--out", recipe / "run")
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("--k", "0"), ("--k", "\u00b2"), ("--n", 2, "--k", "4"), ("--temperature", -1), ("--temperature", 0, "--n", 2)],
)
def test_eval_refuses_numbers_out_of_range_before_it_samples(tmp_path, arguments):
    out = tmp_path / "samples.jsonl"
    assert run("eval", "embedded", "--tasks", "listcraft", "--out", out, *arguments).exit_code == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["update.epocs=3"], "update.epocs: unknown key"),
        (["update.epochs=many"], "update.epochs: got 'many'"),
        (["update.learning_rate=0"], "update.learning_rate: got 0"),
        (["policy.path=/nowhere/model"], "/nowhere/model does not exist"),
        (["tasks.levels=[9]"], "levels: got [9]"),
        (["tasks.report=100000", "tasks.levels=[1]"], "100000 tasks asked for"),
    ],
)
def test_a_fault_of_the_recipe_is_one_line_and_leaves_no_folder(recipe, tmp_path, overrides, message):
    out = tmp_path / "run"
    result = run("train", recipe, "--out", out, *(part for text in overrides for part in ("--set", text)))
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert not out.exists()


def test_a_model_folder_without_a_tokenizer_is_refused_before_anything_is_written(recipe, tmp_path):
    load_policy().save(tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    result = run("train", recipe, "--out", tmp_path / "run", "--set", f"policy.path={tmp_path / 'model'}")
    assert result.exit_code == 1
    assert "holds no tokenizer; save the model's tokenizer beside its weights" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_folder_of_another_recipe_and_one_that_is_no_run_are_refused_and_stay_as_they_are(recipe, tmp_path):
    other = tmp_path / "notes"
    other.mkdir()
    (other / "todo.txt").write_text("keep me")
    result = run("train", recipe, "--out", other)
    assert result.exit_code == 1
    assert "holds something that is not a run; choose another folder" in result.stderr
    assert [path.name for path in other.iterdir()] == ["todo.txt"]
    result = run("report", other)
    assert result.exit_code == 1
    assert "not a run folder" in result.stderr


def test_eval_writes_samples_and_grades_them_and_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "samples.jsonl"
    command = ["eval", "embedded", "--tasks", "listcraft", "--out", out, "--n", 2, "--k", "1,2", "--max-new-tokens", 48]
    first = run(*command, "--json")
    assert first.exit_code == 0, first.output
    answer = json.loads(first.stdout)
    assert 0.05 < answer["scores"]["pass@1"]["mean"] < answer["scores"]["pass@2"]["mean"] < 0.6
    assert answer["scores"]["pass^2"]["mean"] < answer["scores"]["pass@1"]["mean"]
    assert sum(answer["outcomes"].values()) == 200
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    again = run(*command, "--json")
    assert out.read_bytes() == whole
    assert json.loads(again.stdout) == answer


def test_eval_refuses_samples_of_another_model_or_seed(tmp_path):
    out = tmp_path / "samples.jsonl"
    out.write_text("")
    (tmp_path / "samples.settings.json").write_text(json.dumps({"model": "other"}))
    result = run("eval", "embedded", "--tasks", "listcraft", "--out", out, "--n", 1, "--k", "1")
    assert result.exit_code == 1
    assert "holds samples drawn with model other" in result.stderr


def test_grade_refuses_what_it_cannot_grade_in_one_line(tmp_path):
    samples, tasks = tmp_path / "samples.jsonl", tmp_path / "tasks.jsonl"
    samples.write_text('{"task_id": "a", "solution": "def f(x): return x"}\n')
    tasks.write_text('{"id": "a", "prompt": "", "entry_point": "f", "tests": []}\n')
    for arguments, message in (
        (["--tasks", "jsonl", "--data", tasks], "tests is empty"),
        (["--tasks", "jsonl"], "give its file with --data"),
        (["--tasks", "none"], "choose one of"),
        (["--tasks", "listcraft"], "task_id is 'a', which is not among the 100 tasks"),
    ):
        result = run("grade", samples, *arguments)
        assert result.exit_code == 1
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    tasks.write_text('{"id": "a", "prompt": "", "entry_point": "f", "tests": [{"args": [3], "expected": 3}]}\n')
    result = run("grade", samples, "--tasks", "jsonl", "--data", tasks, "--json")
    assert json.loads(result.stdout)["scores"]["pass@1"]["mean"] == 1.0


def test_chain_shows_its_plan_and_runs_nothing_with_dry_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "study.yaml"
    recipe.write_text(yaml.safe_dump({"name": "s", "seeds": [0, 1], "campaigns": 2, "methods": {"naive": {}}}))
    result = run("chain", recipe, "--dry-run", "--json", "--set", "base.campaign.steps=5")
    assert result.exit_code == 0, result.output
    (plan,) = json.loads(result.stdout)["chains"]
    assert plan["steps"] == 10
    assert plan["training completions"] == 3 * 2 * 16 * 8
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_chain_tells_of_clipping_that_can_do_nothing_as_train_does(tmp_path, epochs):
    recipe = tmp_path / "study.yaml"
    study = {
        "name": "s",
        "methods": {"naive": {}, "twice": {"update.epochs": 2}},
        "base": {"update": {"epochs": epochs}},
    }
    recipe.write_text(yaml.safe_dump(study))
    result = run("chain", recipe, "--dry-run")
    assert ("note: naive: update.epochs x update.minibatches is 1" in " ".join(result.stderr.split())) is (epochs == 1)
    assert "twice" not in result.stderr


def test_a_faulty_study_is_one_line(tmp_path):
    recipe = tmp_path / "study.yaml"
    recipe.write_text(yaml.safe_dump({"name": "s", "methods": {"naive": {"campaign.controller": "stop"}}}))
    result = run("chain", recipe, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "controller" in result.stderr
    assert "choose one of" in result.stderr
    assert "naive" in result.stderr
    assert len(result.stderr.splitlines()) == 1
