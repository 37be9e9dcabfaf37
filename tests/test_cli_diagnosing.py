"""`diagnose` and `watch` from the command line: answers on standard output, plain errors, exit codes for scripts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from entrostat.cli import app
from entrostat.runs import Run


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def log(tmp_path):
    """A log whose completions come to be cut, healthy for its first 30 rows."""
    file = tmp_path / "log.jsonl"
    share = np.clip((np.arange(60) - 30) / 10, 0, 0.9)
    rows = [{"step": i + 1, "entropy": 0.5, "truncated": float(share[i])} for i in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("command", ["diagnose", "watch"])
def test_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"    entrostat {command} " in result.output


def test_diagnose_prints_the_finding_with_its_remedy(log):
    result = run("diagnose", log)
    assert result.exit_code == 0, result.output
    assert "truncation" in result.stdout
    assert "max_new_tokens" in result.stdout
    assert "rise-then-fall (no heldout or reward)" in " ".join(result.stdout.split())


def test_diagnose_answers_in_json_and_writes_a_page_without_scripts(log, tmp_path):
    page = tmp_path / "page.html"
    result = run("diagnose", log, "--json", "--html", page)
    answer = json.loads(result.stdout)
    assert [finding["kind"] for finding in answer["findings"]] == ["truncation"]
    assert 30 <= answer["findings"][0]["onset"] <= answer["findings"][0]["first_step"] <= 60
    text = page.read_text()
    assert "<svg" in text
    assert "<script" not in text


def test_names_in_a_log_cannot_write_the_page(tmp_path):
    file = tmp_path / "<img src=x onerror=alert(1)>.jsonl"
    file.write_text('{"step": 1, "entropy": "<script>"}\n{"step": 2, "entropy": 0.5}\n')
    page = tmp_path / "page.html"
    assert run("diagnose", file, "--html", page).exit_code == 0
    assert "<img" not in page.read_text()
    assert "<script" not in page.read_text()


def test_the_budget_decides_over_a_forecast(tmp_path):
    file = tmp_path / "log.jsonl"
    rows = [{"step": i + 1, "entropy": 0.5 * float(np.exp(-0.02 * i))} for i in range(80)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {b: json.loads(run("diagnose", file, "--json", "--budget", b).stdout)["findings"] for b in (90, 400)}
    assert not found[90]
    assert found[400][0]["kind"] == "entropy-collapse"


@pytest.mark.parametrize("content", [None, "", "no log at all\n"])
def test_what_cannot_be_diagnosed_ends_in_one_plain_line(tmp_path, content):
    file = tmp_path / "log"
    if content is not None:
        file.write_text(content)
    result = run("diagnose", file)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("until", ["warning", "critical"])
def test_a_finding_ends_watch_with_a_status_of_its_own(log, until):
    result = run("watch", log, "--once", "--until", until)
    assert result.exit_code == 3
    assert "truncation at step" in result.stdout


UNREADABLE = {
    "missing": None,
    "empty": "",
    "not a format": "no log at all\n",
    "no known column": "".join(json.dumps({"step": i, "foo": 1.0}) + "\n" for i in range(40)),
}


@pytest.mark.parametrize("options", [["--once"], ["--every", "0.1", "--patience", "0.2"]])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_watcher_that_sees_nothing_says_so_and_ends_with_an_error(tmp_path, kind, options):
    file = tmp_path / "log.jsonl"
    if UNREADABLE[kind] is not None:
        file.write_text(UNREADABLE[kind])
    result = run("watch", file, "--until", "warning", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert str(file) in result.stderr.replace("\n", "")


@pytest.mark.parametrize("given", ["log.jsonl", "-", "/dev/zero"])
def test_a_watcher_of_a_pipe_ends_at_once_instead_of_waiting_in_it(tmp_path, given):
    os.mkfifo(tmp_path / "log.jsonl")
    result = run("watch", given if given == "-" else tmp_path / given, "--once", "--until", "warning")
    assert result.exit_code == 1
    assert "a pipe, a socket or a device" in result.stderr


def test_wrong_usage_and_an_interrupt_are_no_finding(log, monkeypatch):
    assert run("watch", log, "--until", "typo").exit_code == 2
    assert run("watch", log, "--until", "critical", "--webhook", "ftp://host").exit_code == 2
    monkeypatch.setattr("entrostat.cli.live.Follower.look", interrupt)
    assert run("watch", log, "--until", "critical").exit_code == 130


def interrupt(_):
    raise KeyboardInterrupt


def test_a_command_is_run_on_a_finding_and_gets_it_in_its_environment(log, tmp_path):
    out = tmp_path / "out"
    command = f'echo "$ENTROSTAT_SEVERITY $ENTROSTAT_KIND" >> {out}; echo "$ENTROSTAT_FINDING" > {out}.json'
    assert run("watch", log, "--once", "--until", "critical", "--exec", command).exit_code == 3
    assert out.read_text() == "critical truncation\n"
    assert json.loads((tmp_path / "out.json").read_text())["kind"] == "truncation"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:30]))
    out.unlink()
    assert run("watch", log, "--once", "--exec", command).exit_code == 0
    assert not out.exists()


def test_a_command_that_fails_is_said_and_the_finding_still_ends_watch(log):
    result = run("watch", log, "--once", "--until", "critical", "--exec", "exit 7")
    assert result.exit_code == 3
    assert "status 7" in result.stdout


def test_watch_records_its_findings(log, tmp_path):
    run("watch", log, "--once", "--record", tmp_path / "found.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"truncation"}


def test_watch_is_silent_over_a_healthy_log(log):
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:30]))
    result = run("watch", log, "--once", "--until", "warning")
    assert result.exit_code == 0
    assert "step 30" in result.stdout


def test_watch_refuses_a_faulty_address_and_a_missing_log(tmp_path, log):
    assert "http" in run("watch", log, "--once", "--webhook", "ftp://host").stderr
    missing = run("watch", tmp_path / "none", "--once")
    assert missing.exit_code == 1
    assert len(missing.stderr.splitlines()) == 1


def failing_run(folder):
    run = Run.create(folder, {"campaign": {"steps": 40}}, 0, {}, {})
    for step in range(1, 41):
        run.log_step({"step": step, "entropy": 0.5 * float(np.exp(-0.15 * max(step - 12, 0)))})
    return folder


def test_the_report_of_a_run_tells_what_diagnose_finds_in_it(tmp_path):
    folder, page = failing_run(tmp_path / "run"), tmp_path / "report.html"
    found = json.loads(run("diagnose", folder, "--json").stdout)["findings"]
    assert [finding["kind"] for finding in found] == ["entropy-collapse"]
    result = run("report", folder, "--out", page)
    assert "critical entropy-collapse" in result.stdout
    text = page.read_text()
    assert f"critical, since step {found[0]['onset']}" in text
    assert 'href="#figure-0-1"' in text
    assert 'id="figure-0-1"' in text


HOSTILE = "\x1b]0;title\x07\x1b[31m\x1b[2J\x9b31m\u202e"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "verl", "junk"])
@pytest.mark.parametrize("command", [["diagnose"], ["watch", "--once"]])
def test_no_control_character_of_a_log_reaches_the_terminal(tmp_path, kind, command):
    name = f"val-core/{HOSTILE}/mean@4"
    row = {"step": 1, "entropy": 0.5, name: 0.5, "reward": HOSTILE}
    texts = {
        "jsonl": json.dumps(row, ensure_ascii=False) + "\n",
        "csv": f"step,entropy,{name},reward\n1,0.5,{HOSTILE},{HOSTILE}\n",
        "verl": f"step:1 - actor/entropy:0.5 - {name}:{HOSTILE} - critic/score/mean:{HOSTILE}\n",
        "junk": HOSTILE * 3,
    }
    log = tmp_path / f"log{HOSTILE}"
    log.write_text(texts[kind])
    result = run(command[0], log, *command[1:])
    shown = result.stdout + result.stderr
    assert shown
    assert [mark for mark in shown if not mark.isprintable() and mark != "\n"] == []


def test_the_settings_shown_are_those_of_the_host_that_wrote_the_log(log, tmp_path):
    text = log.read_text()
    for name, said, not_said in (
        ("truncated", {"max_new_tokens", "max_completion_length", "max_response_length"}, set()),
        ("completions/clipped_ratio", {"max_completion_length"}, {"max_response_length", "max_new_tokens"}),
        ("response_length/clip_ratio", {"max_response_length"}, {"max_completion_length", "max_new_tokens"}),
    ):
        other = tmp_path / "other.jsonl"
        other.write_text(text.replace('"truncated"', f'"{name}"'))
        shown = run("diagnose", other).stdout
        assert all(key in shown for key in said)
        assert not any(key in shown for key in not_said)


def test_a_log_of_few_rows_is_not_called_healthy_without_more_ado(log):
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    assert "says little yet" in run("diagnose", log).stdout


def test_a_remedy_that_comes_again_is_told_once_and_a_guessed_end_is_said(tmp_path):
    log = tmp_path / "log.jsonl"
    fall = [max(i - 12, 0) for i in range(40)]
    rows = [
        {"step": i + 1, "entropy": 0.5 * float(np.exp(-0.06 * by)), "eval_reward": 0.5 / (1 + by)}
        for i, by in enumerate(fall)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in [*rows]))
    shown = " ".join(run("diagnose", log).stdout.split())
    assert "critical: rise-then-fall" in shown
    assert "note: entropy-collapse" in shown
    assert "--budget STEP says it" in shown
    truncated = [{**row, "completions/clipped_ratio": min(0.03 * by, 0.9)} for row, by in zip(rows, fall, strict=True)]
    log.write_text("".join(json.dumps(row) + "\n" for row in truncated))
    shown = " ".join(run("diagnose", log, "--budget", 80).stdout.split())
    assert shown.count("go back to the peak") == 2
    assert shown.count("(as above)") >= 1
    assert "--budget STEP says it" not in shown


def healthy_rows(n=60):
    return [{"step": i + 1, "entropy": 0.5, "truncated": 0.0, "reward": 0.2 + 0.005 * i} for i in range(n)]


def written(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(("severity", "status"), [("critical", 3), ("warning", 3)])
def test_a_build_fails_on_a_finding_with_a_status_of_its_own(log, tmp_path, severity, status):
    assert run("diagnose", log, "--fail-on", severity).exit_code == status
    assert run("diagnose", log).exit_code == 0
    assert run("diagnose", written(tmp_path / "well.jsonl", healthy_rows()), "--fail-on", severity).exit_code == 0
    assert run("diagnose", tmp_path / "none", "--fail-on", severity).exit_code == 1
    assert run("diagnose", log, "--fail-on", "typo").exit_code == 2


def test_what_is_over_fails_no_build_and_is_told(tmp_path):
    rows = healthy_rows(120)
    for row in rows[30:60]:
        row["truncated"] = 0.9
    log = written(tmp_path / "log.jsonl", rows)
    result = run("diagnose", log, "--fail-on", "warning")
    assert result.exit_code == 0
    assert "over: " in result.stdout
    answer = json.loads(run("diagnose", log, "--json").stdout)
    assert [(each["kind"], each["over"] is not None) for each in answer["past"]] == [("truncation", True)]
    assert not answer["findings"]


def test_the_json_says_what_could_and_what_could_not_be_looked_for(log):
    answer = json.loads(run("diagnose", log, "--json").stdout)
    assert answer["schema"] == 2
    assert answer["sighted"]["truncation"] == ["truncated"]
    assert answer["blind"]["kl-runaway"] == ["kl"]
    assert not set(answer["sighted"]) & set(answer["blind"])


def test_every_key_of_the_json_is_documented(log):
    page = (Path(__file__).parents[1] / "docs" / "diagnose.md").read_text()
    answer = json.loads(run("diagnose", log, "--json", "--against", log).stdout)
    keys = {*answer, *answer["findings"][0], *answer["findings"][0]["remedies"][0]}
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_two_runs_part_where_one_changes(log, tmp_path):
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows[40:]:
        row["entropy"] *= 0.2
    other = written(tmp_path / "other.jsonl", rows)
    [parting] = json.loads(run("diagnose", other, "--against", log, "--json").stdout)["partings"]
    assert parting["quantity"] == "entropy"
    assert 41 <= parting["step"] <= 45
    assert "since step" in run("diagnose", other, "--against", log).stdout
    assert json.loads(run("diagnose", log, "--against", log, "--json").stdout)["partings"] == []


def test_several_runs_are_watched_and_the_first_finding_ends_it(log, tmp_path):
    well = written(tmp_path / "well.jsonl", healthy_rows())
    result = run("watch", well, log, "--once", "--until", "critical", "--record", tmp_path / "found.jsonl")
    assert result.exit_code == 3
    assert "well.jsonl" in result.stdout
    assert run("watch", well, well, "--once", "--until", "warning").exit_code == 0
    assert run("watch", well, tmp_path / "none", "--once").exit_code == 1


def test_a_host_can_be_named_and_an_unknown_one_is_refused(log):
    assert "--rollout-max-response-len" in run("diagnose", log, "--host", "slime").stdout
    refused = run("diagnose", log, "--host", "typo")
    assert refused.exit_code == 2
    assert "openrlhf" in refused.stderr


OWN = """
from entrostat.diagnosis import Detector, Finding


class Always(Detector):
    kind = "always"
    columns = ("entropy",)

    def find(self, history, end):
        return Finding(self.kind, "warning", history.step, 1, "It is always so.", {}, ("entropy",))


nothing = 3
"""


def test_a_detector_of_another_package_is_used_by_its_name(log, tmp_path, monkeypatch):
    (tmp_path / "own_detectors.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    answer = json.loads(run("diagnose", log, "--detector", "own_detectors:Always", "--json").stdout)
    assert {"always", "truncation"} <= {each["kind"] for each in answer["findings"]}
    assert "always" in run("watch", log, "--once", "--detector", "own_detectors:Always").stdout
    for name in ("own_detectors:Never", "own_detectors:nothing", "typo"):
        refused = run("diagnose", log, "--detector", name)
        assert refused.exit_code == 2
        assert "--detector" in refused.stderr


def test_a_page_says_what_a_held_out_score_would_have_shown(log, tmp_path):
    page = tmp_path / "page.html"
    run("diagnose", log, "--html", page)
    assert "held-out score would have shown" in page.read_text()
    rows = [{**json.loads(line), "eval_reward": 0.5} for line in log.read_text().splitlines()]
    run("diagnose", written(tmp_path / "scored.jsonl", rows), "--html", page)
    assert "held-out score would have shown" not in page.read_text()
