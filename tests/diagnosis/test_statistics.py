"""The quick statistics of the detectors are the plain ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from entrostat.diagnosis.history import Series
from entrostat.diagnosis.statistics import lasting, median, noise, once_each, rolling_mean, rolling_median, student

VALUES = st.lists(st.floats(-1e50, 1e50), min_size=1, max_size=80).map(np.array)


@given(VALUES)
def test_the_median_is_numpys(values):
    assert median(values) == np.median(values)


@given(VALUES, st.sampled_from([3, 5]))
def test_rolling_medians_are_those_of_each_window(values, window):
    starts = range(len(values) - window + 1)
    assert rolling_median(values, window).tolist() == [float(np.median(values[i : i + window])) for i in starts]


@given(st.lists(st.floats(-1e3, 1e3), max_size=60).map(np.array), st.integers(1, 8))
def test_rolling_means_are_those_of_each_window(values, window):
    starts = range(len(values) - window + 1)
    expected = [float(np.mean(values[i : i + window])) for i in starts]
    assert rolling_mean(values, window).tolist() == pytest.approx(expected, abs=1e-9)


@given(st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_noise_is_that_around_a_trend(sigma, slope):
    values = slope * np.arange(4000) / 1000 + sigma * np.random.default_rng(0).normal(size=4000)
    assert noise(values) == pytest.approx(sigma, rel=0.15)


def correlated(rho: float, n: int = 400, seed: int = 0) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=n)
    values = white.copy()
    for i in range(1, n):
        values[i] = rho * values[i - 1] + np.sqrt(1 - rho**2) * white[i]
    return values


def test_white_noise_does_not_last_whatever_its_size_and_slope():
    values = [3.0 * correlated(0.0, seed=seed) + 0.02 * np.arange(400) for seed in range(40)]
    assert np.median([lasting(each) for each in values]) < 1.1


@pytest.mark.parametrize("rho", [0.6, 0.8])
def test_noise_that_lasts_widens_by_about_what_its_correlation_says(rho):
    found = np.median([lasting(correlated(rho, seed=seed)) for seed in range(40)])
    limit = np.sqrt((1 + rho) / (1 - rho)) / np.sqrt(1 - rho)  # of means of very many, in units of the roughness
    assert 0.4 * limit < found < limit


def test_one_step_is_not_noise_that_lasts():
    step = np.where(np.arange(400) < 200, 1.0, 0.0)
    assert lasting(correlated(0.0) + 20 * step) < 1.3


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=30, unique=True), st.integers(1, 6), st.integers(0, 5))
def test_a_reward_that_is_logged_at_each_update_of_its_batch_counts_once(rewards, updates, cut):
    values = np.repeat(np.array(rewards, float), updates)[min(cut, updates - 1) :]
    single = once_each(Series(np.arange(len(values)), values))
    assert single.values.tolist() == rewards
    assert np.array_equal(values[single.steps], single.values)


def test_a_reward_that_stands_still_at_last_keeps_its_length():
    values = np.array([0.1, 0.3, 0.2, 0.4, 0.1, 0.0, 0.0, 0.0, 0.0])
    assert once_each(Series(np.arange(9), values)).values.tolist() == values.tolist()


@given(st.floats(2, 5000), st.floats(0.9, 1 - 1e-6))
def test_the_quantile_of_student_is_scipys_to_the_digits_that_it_claims(freedom, level):
    assert student(freedom, level) == pytest.approx(special.stdtrit(freedom, level), rel=2e-5 if freedom >= 3 else 6e-4)
