import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from entrostat.runs import (
    Estimate,
    bootstrap_t,
    hierarchical_bootstrap,
    holm,
    mean_interval,
    paired_interval,
    paired_t,
    permutation_test,
    planned_contrasts,
    share_interval,
    sign_test,
    t_interval,
)

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=9)


def covered(interval: Callable[[np.ndarray], Estimate], draw: Callable[[], np.ndarray], truth: float, n: int) -> float:
    """Share of `n` intervals that hold the truth."""
    found = [interval(draw()) for _ in range(n)]
    return sum(one.low <= truth <= one.high for one in found) / n


@given(VALUES)
def test_the_t_interval_is_scipys(values: list[float]):
    found = t_interval(values)
    theirs = stats.t.interval(0.95, len(values) - 1, np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values)))
    if found.high - found.low > 0:
        assert (found.low, found.high) == pytest.approx(theirs, abs=1e-12)
    assert found.values == tuple(values)


def test_one_value_has_a_mean_and_no_interval():
    for interval in (t_interval, bootstrap_t, mean_interval):
        estimate = interval([0.3])
        assert (estimate.mean, estimate.low, estimate.high, estimate.n) == (0.3, None, None, 1)
        assert "no interval" in estimate.note


def test_five_normal_seeds_are_covered_where_a_percentile_bootstrap_misses():
    generator = np.random.default_rng(0)
    assert covered(t_interval, lambda: generator.normal(size=5), 0.0, 2_000) == pytest.approx(0.95, abs=0.015)

    def percentile(values: np.ndarray) -> Estimate:
        means = values[generator.integers(5, size=(500, 5))].mean(1)
        return Estimate(values.mean(), *np.quantile(means, [0.025, 0.975]), tuple(values), "none")

    assert covered(percentile, lambda: generator.normal(size=5), 0.0, 1_000) < 0.88


def test_the_bootstrap_t_interval_follows_skew():
    generator = np.random.default_rng(1)
    draws = [generator.exponential(size=20) for _ in range(600)]
    ours = [bootstrap_t(values, resamples=600) for values in draws]
    theirs = [t_interval(values) for values in draws]
    shares = [sum(one.low <= 1.0 <= one.high for one in found) / len(draws) for found in (ours, theirs)]
    assert shares[0] > 0.92
    assert shares[0] > shares[1]
    above = [one.low > 1.0 for one in theirs]
    below = [one.high < 1.0 for one in theirs]
    assert sum(below) > sum(above)  # Student's misses lie on one side


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 5.0), (3.0, 0.0), (1e-3, -1.0)])
def test_intervals_move_with_their_values(scale: float, shift: float):
    values = np.random.default_rng(2).exponential(size=14)
    for interval in (t_interval, bootstrap_t, mean_interval):
        one, other = interval(values), interval(scale * values + shift)
        assert other.low == pytest.approx(scale * one.low + shift)
        assert other.high == pytest.approx(scale * one.high + shift)


def test_the_interval_suits_n_and_says_so():
    few = mean_interval([0.1, 0.2, 0.3, 0.4, 0.6])
    many = mean_interval(np.random.default_rng(0).exponential(size=30))
    assert (few.method, many.method) == ("t", "bootstrap-t")
    assert "n = 5" in few.note
    assert "Student" in few.note
    assert "read the values" in few.note
    assert "read the values" not in many.note


@pytest.mark.parametrize("values", [[0.5] * 12, [0.0] * 11 + [1.0]])
def test_values_that_hardly_vary_still_have_a_finite_interval(values: list[float]):
    found = mean_interval(values)
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)
    assert found.low <= found.mean <= found.high


def test_many_values_give_the_interval_of_the_central_limit():
    values = np.random.default_rng(0).normal(0.5, 0.1, size=400)
    half = 1.96 * values.std() / math.sqrt(400)
    found = mean_interval(values)
    assert found.low == pytest.approx(values.mean() - half, abs=1e-3)
    assert found.high == pytest.approx(values.mean() + half, abs=1e-3)


def test_pairing_removes_what_the_seeds_share():
    seeds = [0.1, 0.4, 0.9, 0.2, 0.7]
    found = paired_interval([s + 0.05 for s in seeds], seeds)
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))


@given(VALUES, st.randoms())
def test_the_paired_t_test_is_scipys(values: list[float], random):
    others = [random.uniform(-1, 1) for _ in values]
    assume(np.ptp(np.subtract(values, others)) > 1e-6)
    assert paired_t(values, others) == pytest.approx(stats.ttest_rel(values, others).pvalue, rel=1e-6, abs=1e-12)


def test_equal_differences_claim_no_more_than_n_allows():
    assert paired_t([0.5, 0.6, 0.7], [0.0, 0.1, 0.2]) == pytest.approx(0.25)
    assert paired_t([0.5, 0.6], [0.5, 0.6]) == 1.0


def test_the_sign_test_counts_wins_and_leaves_ties_out():
    assert sign_test([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]).p_value == pytest.approx(2 / 32)
    assert sign_test([1, 2, 3, 4, 5, 7], [0, 0, 0, 0, 0, 7]).p_value == pytest.approx(2 / 32)
    assert sign_test([1, 2, 3, 4, 5, 7], [0, 0, 0, 0, 0, 7]).least == pytest.approx(2 / 32)
    assert sign_test([1, 0], [0, 1]).p_value == 1.0
    assert sign_test([3, 3], [3, 3]).p_value == 1.0


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8))
def test_the_permutation_test_is_an_enumeration_of_signs(differences: list[int]):
    kept = [d for d in differences if d]
    flips = [abs(np.dot(signs, kept)) for signs in itertools.product((1, -1), repeat=len(kept))]
    share = sum(flip >= abs(sum(kept)) for flip in flips) / len(flips)
    found = permutation_test(differences, [0] * len(differences))
    assert found.p_value == pytest.approx(share)
    assert found.least == pytest.approx(min(1.0, 2 ** (1 - len(kept))))


def test_five_seeds_cannot_be_significant_by_an_exact_test():
    for test in (sign_test, permutation_test):
        found = test([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
        assert found.p_value == found.least == 0.0625


def test_many_differences_are_tested_by_drawn_signs():
    generator = np.random.default_rng(0)
    a = generator.normal(0.5, 1.0, size=40)
    found = permutation_test(a, np.zeros(40), resamples=4_999)
    assert found.p_value == pytest.approx(stats.ttest_1samp(a, 0).pvalue, abs=0.02)
    assert found.least == 2 / 5_000


def test_a_hierarchical_bootstrap_covers_new_seeds_and_new_tasks():
    generator = np.random.default_rng(3)

    def crossed() -> np.ndarray:
        return (
            0.3 * generator.normal(size=(6, 1)) + generator.normal(size=(1, 16)) + 0.5 * generator.normal(size=(6, 16))
        )

    def ours(table: np.ndarray) -> Estimate:
        return hierarchical_bootstrap(table, resamples=150)

    def of_seeds(table: np.ndarray) -> Estimate:
        return t_interval(table.mean(1))

    assert covered(ours, crossed, 0.0, 250) > 0.92
    assert (
        covered(of_seeds, crossed, 0.0, 250) < 0.85
    )  # means over the tasks that all seeds share know nothing of others


def test_a_hierarchical_bootstrap_of_nested_tasks_covers_new_seeds():
    generator = np.random.default_rng(4)

    def nested() -> np.ndarray:
        return generator.normal(size=(5, 1)) + generator.normal(size=(5, 12))

    share = covered(lambda table: hierarchical_bootstrap(table, crossed=False, resamples=150), nested, 0.0, 300)
    assert 0.91 < share <= 1.0


@pytest.mark.parametrize("shape", [(5,), (1, 9), (9, 1), (2, 2, 2)])
def test_a_hierarchical_bootstrap_needs_seeds_and_tasks(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="at least two of each"):
        hierarchical_bootstrap(np.zeros(shape))


def test_planned_contrasts_correct_over_all_that_were_planned():
    base = [0.1, 0.2, 0.3, 0.4, 0.5]
    pairs = {"far": (list(np.add(base, [1.0, 1.1, 0.9, 1.0, 1.05])), base), "none": (base[::-1], base)}
    found = planned_contrasts(pairs)
    assert [one.p_holm for one in found.values()] == pytest.approx(holm([one.p_value for one in found.values()]))
    assert found["far"].p_holm == pytest.approx(2 * found["far"].p_value)
    assert found["far"].sign.least == found["far"].permutation.least == 0.0625
    assert planned_contrasts({}) == {}


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_values_that_are_no_numbers_are_refused(values: list[float]):
    for interval in (t_interval, bootstrap_t, mean_interval):
        with pytest.raises(ValueError, match="values is"):
            interval(values)


def test_unpaired_values_and_wild_confidences_are_refused():
    for contrast in (paired_interval, paired_t, sign_test, permutation_test):
        with pytest.raises(ValueError, match="seed by seed"):
            contrast([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="confidence is 95"):
        mean_interval([1.0, 2.0], confidence=95)


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


@pytest.mark.parametrize(
    ("draw", "truth", "n", "least"),
    [
        (lambda generator: generator.beta(20, 2, size=5), 20 / 22, 5, 0.92),
        (lambda generator: generator.beta(2, 20, size=12), 2 / 22, 12, 0.93),
        (lambda generator: generator.beta(5, 5, size=3), 0.5, 3, 0.92),
        (lambda generator: generator.binomial(24, generator.beta(14, 1, size=5)) / 24, 14 / 15, 5, 0.93),
        (lambda generator: generator.choice([0.05, 0.6, 0.6], size=20), 1.25 / 3, 20, 0.92),
    ],
)
def test_the_interval_of_shares_stays_within_them_and_covers_the_mean(draw, truth: float, n: int, least: float):
    generator = np.random.default_rng(n)
    found = [share_interval(draw(generator)) for _ in range(1_000)]
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found)
    assert sum(one.low <= truth <= one.high for one in found) / len(found) >= least


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_interval_of_shares_is_that_of_their_complements_turned(values: list[float]):
    assume(np.ptp(values) > 1e-3)
    one, other = share_interval(values), share_interval([1 - value for value in values])
    assert (1 - other.high, 1 - other.low) == pytest.approx((one.low, one.high), abs=1e-9)


def test_shares_in_the_middle_that_hardly_vary_have_students_interval():
    values = [0.49, 0.5, 0.51, 0.5, 0.502]
    one, other = share_interval(values), t_interval(values)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-5)


@pytest.mark.parametrize("values", [[1.0] * 4, [0.0] * 4, [0.3] * 4])
def test_equal_shares_have_the_interval_of_their_value(values: list[float]):
    found = share_interval(values)
    assert (found.low, found.high) == (values[0], values[0])


@pytest.mark.parametrize("values", [[0.5, 1.1], [-0.1, 0.5], [0.5, math.nan], []])
def test_what_is_no_share_is_refused(values: list[float]):
    with pytest.raises(ValueError, match="values is"):
        share_interval(values)
