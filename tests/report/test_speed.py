"""Speed of a run: rates are sums over sums, shares add up to one, and a run without timings has none."""

import pytest

from entrostat.report import read_run, speed
from entrostat.runs import Run


def folder(path, steps, evals=()):
    run = Run.create(path, {"name": "x"}, 0, {}, {})
    for line in steps:
        run.log_step(line)
    for line in evals:
        run.log_eval(line)
    return read_run(path, "x")


def test_rates_are_sums_over_sums(tmp_path):
    first = {
        "step": 1,
        "tokens": {"rollout": 100, "update": 100},
        "seconds": {"rollout": 1.0, "grade": 0.5, "update": 2.0},
    }
    second = {
        **first,
        "step": 2,
        "tokens": {"rollout": 0, "update": 100},
        "seconds": {"rollout": 0.0, "grade": 0.0, "update": 3.0},
    }
    evaluation = {"step": 2, "split": "select", "results": [["a", 1, 1]], "seconds": 3.5}
    found = speed(folder(tmp_path / "run", [first, second], [evaluation]))
    assert (found.rollout_tokens, found.update_tokens) == (100, 40)
    assert found.shares == pytest.approx({"rollout": 0.1, "grade": 0.05, "update": 0.5, "evaluate": 0.35})


def test_a_run_without_timings_has_no_rates(tmp_path):
    found = speed(folder(tmp_path / "run", [{"step": 1}]))
    assert (found.rollout_tokens, found.update_tokens, found.shares) == (None, None, {})
