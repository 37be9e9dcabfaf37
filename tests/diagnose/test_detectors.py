"""Each detector: finds its failure, names its onset, and is silent without it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.diagnose import DETECTORS, Finding, Watchdog, recognise_row
from entrostat.recipe import parse_recipe


def watched(rows, end=None):
    watchdog = Watchdog(end or rows[-1]["step"])
    for row in rows:
        watchdog.observe(row["step"], recognise_row(row).values)
    return watchdog


def found(rows, end=None) -> dict[str, Finding]:
    return {finding.kind: finding for finding in watched(rows, end).findings}


def ramp(t, start, width):
    return np.clip((t - start) / width, 0, 1)


FAILURES = {
    "entropy-collapse": {"entropy": lambda t, rng: 0.5 * np.exp(-5 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.03, len(t)))},
    "entropy-explosion": {"entropy": lambda t, rng: 0.2 * np.exp(2 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.03, len(t)))},
    "rise-then-fall": {
        "reward": lambda t, rng: (0.2 + 0.5 * t) * (1 - 0.9 * ramp(t, 0.5, 0.1)) + rng.normal(0, 0.02, len(t))
    },
    "divergence": {
        "eval_reward": lambda t, rng: 0.4 - 0.2 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.01, len(t)),
        "reward": lambda t, rng: 0.4 + 0.5 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.02, len(t)),
    },
    "degenerate-groups": {"frac_reward_zero_std": lambda t, _: 0.3 + 0.65 * ramp(t, 0.4, 0.1)},
    "clip-saturation": {"clip_ratio/low_mean": lambda t, _: 0.01 + 0.5 * ramp(t, 0.4, 0.1)},
    "truncation": {"completions/clipped_ratio": lambda t, _: 0.02 + 0.6 * ramp(t, 0.4, 0.2)},
    "length-degeneration": {
        "completions/mean_length": lambda t, _: 200 * np.exp(1.5 * ramp(t, 0.4, 0.2)),
        "reward": lambda t, rng: 0.5 + rng.normal(0, 0.02, len(t)),
    },
    "kl-runaway": {"kl": lambda t, _: 0.02 * t + 0.01 * np.expm1(9 * ramp(t, 0.4, 0.5))},
    "gradient-fade": {"grad_norm": lambda t, rng: 0.3 * np.exp(-6 * ramp(t, 0.4, 0.1) + rng.normal(0, 0.1, len(t)))},
    "not-finite": {"loss": lambda t, _: np.where(t > 0.5, np.nan, 0.0)},
}


def test_every_kind_has_a_failure_here():
    assert set(FAILURES) == {detector.kind for detector in DETECTORS}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_found_after_its_onset_and_not_before(rows, kind):
    made = rows(**FAILURES[kind])
    finding = found(made)[kind]
    assert finding.step > 0.4 * len(made)
    assert 0.3 * len(made) <= finding.onset <= finding.step
    assert all(math.isfinite(value) for value in finding.evidence.values())
    assert finding.remedies


@pytest.mark.parametrize("kind", FAILURES)
def test_only_the_part_before_the_onset_is_healthy(rows, kind):
    made = rows(**FAILURES[kind])
    assert not found(made[: int(0.4 * len(made))], end=len(made))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.sampled_from([20, 60, 150, 300]))
def test_a_healthy_run_has_no_finding(seed, n):
    from tests.diagnose.conftest import make_rows

    assert not watched(make_rows(n, seed)).findings


def test_an_entropy_that_levels_off_is_no_collapse(rows):
    made = rows(entropy=lambda t, rng: 0.5 * (0.2 + 0.8 * np.exp(-12 * t)) * np.exp(rng.normal(0, 0.02, len(t))))
    assert not found(made)


def test_the_arrival_interval_covers_the_arrival_of_an_exponential_course(rows):
    """n = 60 logs, interval of 95 %: at least 50 hold the step where the course without noise meets the floor."""
    covered = 0
    for seed in range(60):
        made = rows(
            n=200, seed=seed, entropy=lambda t, rng: 0.5 * np.exp(-4 * ramp(t, 0.2, 0.8) + rng.normal(0, 0.05, len(t)))
        )
        warning = watched(made).findings[0]
        assert warning.kind == "entropy-collapse"
        assert warning.severity == "warning"
        truth = 200 * (0.2 + 0.8 * math.log(20) / 4)
        covered += warning.evidence["arrival_soonest"] <= truth <= warning.evidence["arrival_latest"]
    assert covered >= 50


def test_a_collapse_that_comes_after_the_budget_is_none(rows):
    course = {"entropy": lambda t, rng: 0.5 * np.exp(-1.8 * t + rng.normal(0, 0.02, len(t)))}
    assert not found(rows(**course), end=120)
    assert "entropy-collapse" in found(rows(**course), end=400)


@pytest.mark.parametrize(("side", "name"), [("lower", "clip_ratio/low_mean"), ("upper", "clip_ratio/high_mean")])
def test_clipping_is_told_apart_by_side(rows, side, name):
    finding = found(rows(**{name: lambda t, _: np.full(len(t), 0.5)}))["clip-saturation"]
    assert side in finding.summary


@pytest.mark.parametrize(("rate", "words"), [(0.98, "too easy"), (0.02, "too hard")])
def test_groups_are_told_apart_by_the_mean_reward(rows, rate, words):
    made = rows(
        frac_reward_zero_std=lambda t, _: np.full(len(t), 0.95),
        reward=lambda t, rng: rate + rng.normal(0, 0.002, len(t)),
    )
    finding = found(made)["degenerate-groups"]
    assert words in finding.summary
    right, wrong = finding.evidence["all_right"], finding.evidence["all_wrong"]
    assert right + wrong == pytest.approx(0.95)
    assert max(rate - 0.05, 0) <= right <= min(rate, 0.95)


def test_longer_completions_with_more_reward_are_no_failure(rows):
    grown = {"completions/mean_length": lambda t, _: 200 * np.exp(1.5 * t)}
    assert not found(rows(**grown, reward=lambda t, rng: 0.2 + 0.5 * t + rng.normal(0, 0.02, len(t))))


def test_one_overflowing_gradient_is_a_warning_and_three_are_critical(rows):
    one, many = rows(), rows()
    for row in one[50:51]:
        row["grad_norm"] = math.inf
    for row in many[50:53]:
        row["grad_norm"] = math.inf
    assert found(one)["not-finite"].severity == "warning"
    assert found(many)["not-finite"].severity == "critical"


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.01, 100.0),
    kind=st.sampled_from(["entropy-collapse", "entropy-explosion", "gradient-fade", "length-degeneration"]),
)
def test_what_is_relative_does_not_depend_on_the_unit(scale, kind):
    from tests.diagnose.conftest import make_rows

    made = make_rows(**FAILURES[kind])
    column = next(name for name in FAILURES[kind] if name != "reward")
    rescaled = [{**row, column: row[column] * scale} for row in made]
    assert found(made)[kind].step == found(rescaled)[kind].step


def test_every_remedy_is_a_recipe_that_is_accepted():
    from entrostat.diagnose import remedies
    from entrostat.diagnose.finding import Remedy

    groups = [value for value in vars(remedies).values() if isinstance(value, tuple)]
    groups += remedies.CLIPPING.values()
    known = [remedy for group in groups for remedy in group if isinstance(remedy, Remedy)]
    assert len(known) > 20
    for remedy in known:
        assert remedy.reason
        assert remedy.source
        parse_recipe({"name": "remedied", **remedy.recipe})


@pytest.mark.parametrize(("logged", "half"), [(2e-3, 1e-3), (None, None)])
def test_a_halved_learning_rate_is_half_of_the_runs_own(rows, logged, half):
    rate = {"learning_rate": lambda t, _: np.minimum(logged, 4 * logged * t)} if logged else {}
    finding = found(rows(**FAILURES["not-finite"], **rate))["not-finite"]
    first = finding.remedies[0]
    assert first.trl.get("learning_rate") == half
    assert first.verl.get("actor_rollout_ref.actor.optim.lr") == half
    assert first.recipe["update"].get("learning_rate") == half
    assert first.trl["max_grad_norm"] == 1.0
