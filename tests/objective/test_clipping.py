"""Clip rules: closed forms, the published table, and what is refused when built."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.objective import ClipRule, LinearThreshold

steady = settings(deadline=None, max_examples=50)
UPPER = LinearThreshold(-0.25, 0.50)
LOWER = LinearThreshold(-0.13, 0.30)
PUBLISHED = ClipRule(UPPER, LOWER)


def band_at(rule: ClipRule, *probabilities: float) -> tuple[torch.Tensor, torch.Tensor]:
    return rule.bounds(torch.tensor(probabilities, dtype=torch.float64).log())


def test_bounds_reproduce_the_published_table() -> None:
    low, high = band_at(PUBLISHED, 0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)
    expected_high = torch.tensor([1.500, 1.463, 1.395, 1.333, 1.277, 1.224, 1.200], dtype=torch.float64)
    expected_low = torch.tensor([0.700, 0.709, 0.728, 0.749, 0.770, 0.793, 0.805], dtype=torch.float64)
    torch.testing.assert_close(high, expected_high, atol=5e-4, rtol=0)
    torch.testing.assert_close(low, expected_low, atol=5e-4, rtol=0)


def test_closed_form_clips_the_same_pairs_as_the_threshold_in_the_current_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    q, p = torch.rand((2, 1_000_000), generator=generator, dtype=torch.float64)
    low, high = PUBLISHED.bounds(q.log())
    ratio = p / q
    assert torch.equal(ratio <= high, ratio <= 1 + UPPER.slope * p + UPPER.intercept)
    assert torch.equal(ratio >= low, ratio >= 1 - LOWER.slope * p - LOWER.intercept)


@steady
@given(
    slope=st.floats(-0.9, 0.9),
    intercept=st.floats(0.0, 0.9),
    q=st.floats(1e-6, 1.0),
)
def test_on_the_border_the_ratio_is_one_plus_or_minus_epsilon(slope: float, intercept: float, q: float) -> None:
    threshold = LinearThreshold(slope, intercept + max(0.0, -slope) * 1.001)
    low, high = band_at(ClipRule(threshold, threshold), q)
    assert math.isclose(high.item(), 1 + threshold.at(high.item() * q), rel_tol=1e-9)
    if threshold.intercept < 1:
        assert math.isclose(low.item(), 1 - threshold.at(low.item() * q), rel_tol=1e-9, abs_tol=1e-12)


def test_constant_thresholds_give_the_constant_band_of_ppo() -> None:
    low, high = band_at(ClipRule.constant(lower=0.2, upper=0.28), 0.01, 0.5, 1)
    torch.testing.assert_close(high, torch.full_like(high, 1.28))
    torch.testing.assert_close(low, torch.full_like(low, 0.8))
    assert ClipRule.constant() == ClipRule()


@steady
@given(weight=st.floats(0, 1), p=st.floats(0, 1))
def test_a_mixture_is_linear_in_both_thresholds(weight: float, p: float) -> None:
    mixed = UPPER.mix(LOWER, weight).at(p)
    assert math.isclose(mixed, weight * UPPER.at(p) + (1 - weight) * LOWER.at(p), rel_tol=1e-12)


@steady
@given(weight=st.floats(0, 1))
def test_a_mixture_of_rules_mixes_both_sides(weight: float) -> None:
    mixed = PUBLISHED.mix(ClipRule(), weight)
    assert mixed.upper == UPPER.mix(LinearThreshold.constant(0.2), weight)
    assert mixed.lower == LOWER.mix(LinearThreshold.constant(0.2), weight)


def test_the_ends_of_a_mixture_are_its_parts() -> None:
    assert UPPER.mix(LOWER, 1) == UPPER
    assert UPPER.mix(LOWER, 0) == LOWER


@pytest.mark.parametrize("weight", [-0.01, 1.01, math.nan])
def test_a_weight_outside_the_unit_interval_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weight is .* in \[0, 1\]"):
        UPPER.mix(LOWER, weight)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_coefficient_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"LinearThreshold\.slope"):
        LinearThreshold(value, 0.2)


@pytest.mark.parametrize(
    ("upper", "lower", "field", "offending"),
    [
        ((1.0, 0.2), (0.0, 0.2), "upper", "q = 1"),
        ((2.0, 0.2), (0.0, 0.2), "upper", "q = 0.5"),
        ((0.0, 0.2), (-4.0, 5.0), "lower", "q = 0.25"),
        ((-0.5, 0.2), (0.0, 0.2), "upper", "q = 1"),
        ((0.3, -0.1), (0.0, 0.2), "upper", "q = 0"),
        ((0.0, 0.2), (-0.5, 0.3), "lower", "q = 1"),
        ((0.0, 0.2), (0.1, -0.05), "lower", "q = 0"),
    ],
)
def test_a_vanishing_denominator_or_an_inverted_band_is_refused_with_the_offending_q(
    upper: tuple[float, float], lower: tuple[float, float], field: str, offending: str
) -> None:
    with pytest.raises(ValueError, match=rf"ClipRule\.{field}.*{offending}[,;]"):
        ClipRule(LinearThreshold(*upper), LinearThreshold(*lower))


@steady
@given(
    upper=st.tuples(st.floats(-2, 2), st.floats(-1, 2)),
    lower=st.tuples(st.floats(-2, 2), st.floats(-1, 2)),
)
def test_every_rule_that_is_built_has_a_band_around_one(upper: tuple[float, float], lower: tuple[float, float]) -> None:
    try:
        rule = ClipRule(LinearThreshold(*upper), LinearThreshold(*lower))
    except ValueError:
        return
    low, high = rule.bounds(torch.linspace(0, 1, 101, dtype=torch.float64).log())
    assert ((low >= 0) & (low <= 1) & (high >= 1) & high.isfinite()).all()


def test_limits_cut_one_side_for_each_sign_and_nothing_without_an_advantage() -> None:
    old_logp = torch.full((3,), 0.5).log()
    low, high = ClipRule().limits(old_logp, torch.tensor([1.0, -1.0, 0.0]))
    torch.testing.assert_close(low, torch.tensor([0.0, 0.8, 0.0]))
    torch.testing.assert_close(high, torch.tensor([1.2, math.inf, math.inf]))
