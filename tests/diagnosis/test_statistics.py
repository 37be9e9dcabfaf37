"""The quick statistics of the detectors are the plain ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.diagnosis.statistics import median, noise, rolling_mean, rolling_median

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
