from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.runs import mean_over_tasks, pass_at_k, pass_hat_k

COUNTS = st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@given(COUNTS)
def test_both_are_the_share_of_subsets_with_the_property(counts: tuple[int, int, int]):
    n, c, k = counts
    subsets = list(combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)
    assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, subsets)) / len(subsets), abs=1e-15)


@given(COUNTS, st.fractions(0, 1, max_denominator=20))
def test_neither_is_biased_under_binomial_sampling(counts: tuple[int, int, int], p: Fraction):
    n, _, k = counts
    chance = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    at = sum(float(w) * pass_at_k(n, c, k) for c, w in enumerate(chance))
    hat = sum(float(w) * pass_hat_k(n, c, k) for c, w in enumerate(chance))
    assert at == pytest.approx(float(1 - (1 - p) ** k), abs=1e-12)
    assert hat == pytest.approx(float(p**k), abs=1e-12)


def test_large_counts_stay_exact():
    assert pass_at_k(10_000, 1, 5_000) == 0.5
    assert pass_at_k(10_000, 0, 9_999) == 0.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
@pytest.mark.parametrize("estimator", [pass_at_k, pass_hat_k])
def test_impossible_counts_are_refused(estimator, n: int, c: int, k: int):
    with pytest.raises(ValueError, match="outside"):
        estimator(n, c, k)


def test_tasks_weigh_the_same_however_often_they_were_sampled():
    assert mean_over_tasks([(1, 1), (100, 0)], k=1) == 0.5
    with pytest.raises(ValueError, match="empty"):
        mean_over_tasks([], k=1)
