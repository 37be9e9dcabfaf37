"""What a prompt and a notebook show is short, and a path may be a string."""

import json
from pathlib import Path

import pytest

from entrostat import Run, diagnose, read_log
from entrostat.campaign import CampaignOutcome, CampaignTrace, Checkpoint, Trajectory
from entrostat.report import build_report, read_runs

HOSTILE = "<script>alert(1)</script>\ud800"


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", {"name": HOSTILE, "long": ["x" * 100] * 100}, 3, {}, {"torch": "2"})
    for step in range(60):
        run.log_step({"step": step, "entropy": 1.0 * 0.9**step, "reward": 0.5, "phase": HOSTILE})
    run.log_eval({"step": 0, "split": "select", "results": [["t", 4, 2]]})
    return run


def test_reprs_are_short(run):
    found = diagnose(read_log(run.path))
    assert found.findings
    for thing in (run, found, found.log, read_runs([run.path])[0]):
        assert len(repr(thing)) < 400, repr(thing)


def test_what_training_returns_is_short_however_long_it_was():
    steps = tuple(range(1000))
    select = Trajectory(steps, tuple(0.2 + 0.5 * (step == 700) for step in steps))
    points = [Checkpoint(Path("runs/run/checkpoints") / ("0" * 64), step) for step in (0, 700, 999)]
    lines = [{"step": step, "entropy": 1.0} for step in steps]
    outcome = CampaignOutcome(CampaignTrace(select, select, *points, steps=lines, evals=lines), points[1], False)
    assert len(repr(outcome)) < 600
    for shown in ("999 steps", "1000 evaluations", "0.700 at the peak (step 700)", "0.200 last"):
        assert shown in repr(outcome)


def test_a_notebook_shows_the_findings_and_the_steps(run):
    found = diagnose(read_log(run.path))
    assert found.findings[0].kind in found._repr_html_()
    assert "60 steps" in run._repr_html_()


def test_no_text_of_a_log_is_markup_in_a_notebook(tmp_path):
    log = tmp_path / "<b>.jsonl"
    log.write_text("".join(json.dumps({"step": step, "entropy": 1.0}) + "\n" for step in range(5)))
    shown = diagnose(read_log(log))._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown


def test_paths_may_be_strings(run, tmp_path):
    assert Run.open(str(run.path)) == run
    assert read_runs([str(run.path)])[0].run == run
    page = build_report([str(run.path)], str(tmp_path / "page.html"))
    assert page.exists()
