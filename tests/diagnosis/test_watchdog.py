"""A run watched live and its log read afterwards get the same findings."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnosis.conftest import make_rows
from tests.diagnosis.test_detectors import FAILURES

from entrostat.diagnosis import History, Watchdog, diagnose, read_log, recognise_row
from entrostat.diagnosis.follow import Follower


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(sorted(FAILURES)), seed=st.integers(0, 99), cut=st.integers(1, 120))
def test_live_and_offline_agree_at_every_step(tmp_path_factory, kind, seed, cut):
    rows = make_rows(seed=seed, **FAILURES[kind])[:cut]
    live = Watchdog(120)
    for row in rows:
        live.observe(row["step"], recognise_row(row).values)
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    file.write_text(as_jsonl(rows))
    assert diagnose(read_log(file), end=120).watchdog.findings == live.findings


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(sorted(FAILURES)), cuts=st.lists(st.integers(0, 20_000), max_size=6))
def test_a_followed_file_gives_the_same_findings_however_it_grows(tmp_path_factory, kind, cuts):
    whole = as_jsonl(make_rows(**FAILURES[kind])).encode()
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    follower, heard = Follower(file, end=120), []
    for cut in [*sorted(cuts), len(whole)]:
        file.write_bytes(whole[:cut])
        heard += follower.look()
    expected = diagnose(read_log(file), end=120).watchdog.findings
    assert follower.watchdog.findings == expected
    assert [(f.kind, f.severity) for f in heard] == [(f.kind, f.severity) for f in expected]


def test_a_log_begun_anew_is_diagnosed_from_its_first_row(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text(as_jsonl(make_rows(**FAILURES["entropy-collapse"])))
    follower = Follower(file)
    assert follower.look()
    file.write_text(as_jsonl(make_rows(n=30, seed=5)))
    assert not follower.look()
    assert follower.watchdog.history.step == 30


def test_rows_of_one_step_may_come_apart(rows):
    whole, apart = Watchdog(120), Watchdog(120)
    for row in rows(**FAILURES["divergence"]):
        values = recognise_row(row).values
        whole.observe(row["step"], values)
        heldout = values.pop("heldout")
        apart.observe(row["step"], values)
        apart.observe(row["step"], {"heldout": heldout})
    assert [(f.kind, f.step) for f in whole.findings] == [(f.kind, f.step) for f in apart.findings]


def test_a_finding_is_reported_once_and_again_when_it_becomes_critical(rows):
    watchdog = Watchdog(120)
    for row in rows(**FAILURES["entropy-collapse"]):
        watchdog.observe(row["step"], recognise_row(row).values)
    assert [f.severity for f in watchdog.findings if f.kind == "entropy-collapse"] == ["warning", "critical"]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(allow_nan=True, allow_infinity=True)), max_size=300))
def test_a_history_keeps_steps_growing_and_values_finite(rows):
    history = History()
    for step, value in rows:
        history.append(step, {"entropy": value})
    steps, values = history.series("entropy")
    assert (np.diff(steps) > 0).all()
    assert np.isfinite(values).all()


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 0.0, -1.0])
def test_extreme_values_break_no_detector(rows, value):
    for column in ("entropy", "reward", "kl", "grad_norm", "completions/mean_length", "frac_reward_zero_std"):
        made = rows(n=60, **{column: lambda t, _, value=value: np.where(t > 0.5, value, 0.3)})
        watchdog = Watchdog(60)
        with np.errstate(over="ignore", invalid="ignore"):
            for row in made:
                watchdog.observe(row["step"], recognise_row(row).values)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_arbitrary_numbers_break_no_detector(data):
    number = st.floats(allow_nan=True, allow_infinity=True)
    names = [
        "entropy",
        "reward",
        "kl",
        "grad_norm",
        "length",
        "truncated",
        "equal_groups",
        "clip_low",
        "heldout",
        "loss",
    ]
    rows = data.draw(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(names, number)), max_size=40))
    watchdog = Watchdog()
    with np.errstate(all="ignore"):
        for step, row in enumerate(rows):
            watchdog.observe(step, row)
