import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.runs import bootstrap_mean, holm, paired_bootstrap, sign_test


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_a_bootstrap_of_three_seeds_returns_its_extremes_and_says_so(values: list[float]):
    estimate = bootstrap_mean(values, resamples=2_000)
    assert estimate.low == pytest.approx(min(values), abs=1e-12)
    assert estimate.high == pytest.approx(max(values), abs=1e-12)
    assert "least and the greatest" in estimate.warning
    assert estimate.values == tuple(values)


def test_one_value_has_a_mean_and_no_interval():
    estimate = bootstrap_mean([0.3])
    assert (estimate.mean, estimate.low, estimate.high, estimate.n) == (0.3, None, None, 1)
    assert estimate.warning == "n = 1: no interval"


def test_many_seeds_give_the_interval_of_the_central_limit_and_no_warning():
    values = np.random.default_rng(0).normal(0.5, 0.1, size=400)
    estimate = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.warning is None
    assert estimate.low == pytest.approx(values.mean() - half, abs=6e-4)
    assert estimate.high == pytest.approx(values.mean() + half, abs=6e-4)


def test_five_seeds_are_warned_of():
    assert "too narrow" in bootstrap_mean([0.1, 0.2, 0.3, 0.4, 0.5]).warning


def test_the_same_seed_gives_the_same_interval():
    values = [0.1, 0.5, 0.2, 0.9, 0.3]
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)


def test_pairing_removes_what_the_seeds_share():
    seeds = [0.1, 0.4, 0.9, 0.2, 0.7]
    estimate = paired_bootstrap([s + 0.05 for s in seeds], seeds)
    assert estimate.mean == pytest.approx(0.05)
    assert estimate.low == pytest.approx(0.05)
    assert estimate.high == pytest.approx(0.05)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_values_that_are_no_numbers_are_refused(values: list[float]):
    with pytest.raises(ValueError, match="values is"):
        bootstrap_mean(values)


def test_unpaired_values_and_wild_confidences_are_refused():
    for contrast in (paired_bootstrap, sign_test):
        with pytest.raises(ValueError, match="seed by seed"):
            contrast([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_mean([1.0, 2.0], confidence=95)


def test_the_sign_test_counts_wins_and_leaves_ties_out():
    assert sign_test([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]) == pytest.approx(2 / 32)
    assert sign_test([1, 2, 3, 4, 5, 7], [0, 0, 0, 0, 0, 7]) == pytest.approx(2 / 32)
    assert sign_test([1, 0], [0, 1]) == 1.0
    assert sign_test([3, 3], [3, 3]) == 1.0


def test_holm_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]):
    adjusted = holm(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= min(1.0, len(p_values) * raw) + 1e-15
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="p_values"):
        holm([0.5, math.nan])
