"""A fall of a score: what its certainty rests on, and how rarely noise alone is taken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.diagnosis import DETECTORS, Watchdog
from entrostat.diagnosis.detectors.performance import completions_per_batch, fall_from_peak
from entrostat.diagnosis.history import Series
from entrostat.diagnosis.statistics import correlated

DETECTOR = next(each for each in DETECTORS if each.kind == "rise-then-fall")


def fall(values, error=None, design=4.0, chance=0.05):
    return fall_from_peak(Series(np.arange(len(values)), np.asarray(values)), 3, 0.2, chance, design, 8.0, error)


def alarmed(values, column="reward"):
    watchdog = Watchdog(len(values), [DETECTOR])
    for step, value in enumerate(values):
        watchdog.observe(step, {column: float(value)})
    return bool(watchdog.findings)


def coloured(rho, n, rng):
    values = rng.normal(size=n)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + np.sqrt(1 - rho**2) * values[i]
    return values


@given(st.integers(2, 500), st.integers(3, 4), st.integers(0, 10**6))
def test_the_size_of_a_batch_is_read_off_its_shares_however_they_are_rounded(size, decimals, seed):
    counts = np.random.default_rng(seed).integers(0, size + 1, 40 if size <= 100 or decimals == 4 else 0)
    if not len(counts):
        return  # 3 decimals do not tell so large a batch
    found = completions_per_batch(np.round(counts / size, decimals))
    assert found is not None
    assert size % found == 0
    assert all((counts * found) % size == 0)


@given(st.integers(0, 10**6))
def test_arbitrary_numbers_have_no_size_of_a_batch(seed):
    assert completions_per_batch(np.random.default_rng(seed).random(12)) is None


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_correlated_is_how_much_more_means_of_eight_stray_than_the_differences_say(rho):
    rng = np.random.default_rng(3)
    series = [coloured(rho, 400, rng) for _ in range(60)]
    by_differences = np.sqrt(np.mean([np.mean(np.diff(x) ** 2) / 2 for x in series]) / 8)
    strays = np.std([x[i : i + 8].mean() for x in series for i in range(0, 400, 40)])
    assert np.median([correlated(x) for x in series]) == pytest.approx(strays / by_differences, rel=0.15)
    trend = [correlated(x + np.linspace(0, 5, 400)) for x in series]
    assert np.median(trend) == pytest.approx(np.median([correlated(x) for x in series]), rel=0.05)


def test_the_same_fall_is_more_certain_of_larger_batches_and_after_less_noise():
    rng = np.random.default_rng(0)
    small, large = (np.concatenate([rng.binomial(n, 0.6, 12) / n, rng.binomial(n, 0.3, 3) / n]) for n in (8, 512))
    assert fall(large).errors > 2 * fall(small).errors
    assert fall(large, design=8.0).errors < fall(large).errors
    assert fall(large, chance=0.001).needed > fall(large).needed


@given(st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_a_reward_beyond_0_to_1_is_judged_on_any_scale_alike(scale, shift):
    rng = np.random.default_rng(1)
    values = np.concatenate([np.linspace(-2, 5, 30), np.full(10, 0.0)]) + 0.5 * rng.normal(size=40)
    here, there = fall(values), fall(values * scale + shift if (values * scale + shift).min() < 0 else values)
    assert there.errors == pytest.approx(here.errors, rel=1e-6)


def test_a_mirrored_share_is_on_the_same_scale():
    """arcsin sqrt(1 - x) = pi / 2 - arcsin sqrt(x): near 1 a fall of a share counts as near 0."""
    down = np.concatenate([np.full(10, 0.95), np.full(4, 0.70)]) + 0.01 * np.resize([1, -1], 14)
    up = (1 - down)[::-1]
    assert fall(down).drop == pytest.approx(fall(up).drop, rel=0.2)


@pytest.mark.parametrize(("rho", "most"), [(0.0, 1), (0.8, 8)])
def test_sound_rewards_are_seldom_alarmed_even_where_their_noise_lasts(rho, most):
    rng = np.random.default_rng(17)
    course = 0.3 + 0.3 / (1 + np.exp(-np.linspace(-4, 6, 120)))
    assert sum(alarmed(course + 0.06 * coloured(rho, 120, rng)) for _ in range(30)) <= most


def test_falls_of_a_few_batches_are_found_and_sound_runs_of_a_few_are_not_alarmed():
    rng = np.random.default_rng(5)

    def rewards(rates):
        return [rng.binomial(8, rng.beta(3 * max(r, 0.001), 3 * (1 - r), 16)).mean() / 8 for r in rates]

    rising, fallen = np.linspace(0.25, 0.6, 14), np.r_[np.linspace(0.25, 0.6, 10), 0.2, 0.05, 0.001, 0.001]
    assert sum(alarmed(rewards(fallen)) for _ in range(40)) >= 34
    assert sum(alarmed(rewards(rising)) for _ in range(40)) <= 1


def test_one_evaluation_tells_a_deep_fall_and_the_next_one_confirms_it():
    scores = [0.2, 0.3, 0.42, 0.5, 0.52, 0.51, 0.06, 0.02]
    assert not alarmed(scores[:-1], "heldout")
    assert alarmed(scores, "heldout")
