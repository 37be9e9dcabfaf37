"""The other clip rules: worked numbers, limits by sign, what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.control.mai import CircuitBreaker
from entrostat.objective import (
    CLIP_HIGHER,
    CLIP_LOWER,
    AbcClip,
    ClipBand,
    ClipRule,
    DcpoClip,
    DppoClip,
    DualClip,
    FreeRegion,
    LinearThreshold,
    policy_loss,
)

F64 = torch.float64
SLOPE = LinearThreshold(-0.1, 0.3)
RULES = [CLIP_HIGHER, CLIP_LOWER, DualClip(), DppoClip(), DcpoClip(), AbcClip()]
steady = settings(deadline=None, max_examples=50)


def band_at(rule: ClipBand, *probabilities: float) -> tuple[list[float], list[float]]:
    low, high = rule.bounds(torch.tensor(probabilities, dtype=F64).log())
    return low.tolist(), high.tolist()


def direction(rule: ClipBand, ratio: float, advantage: float) -> float:
    """The slope that the clip objective leaves to one token of old probability .5."""
    old_logp = torch.tensor([0.5], dtype=F64).log()
    adv = torch.tensor([advantage], dtype=F64)
    return policy_loss(old_logp + math.log(ratio), old_logp, adv, torch.ones(1), rule=rule).slope.item()


@pytest.mark.parametrize("rule", RULES)
@steady
@given(q=st.floats(1e-6, 1.0))
def test_every_band_lies_around_one(rule: ClipBand, q: float) -> None:
    (low,), (high,) = band_at(rule, q)
    assert 0 <= low <= 1 <= high


@pytest.mark.parametrize("rule", RULES)
@steady
@given(q=st.floats(1e-3, 1.0), ratio=st.floats(0.05, 20.0), sign=st.sampled_from([-1.0, 1.0]))
def test_the_gradient_survives_exactly_within_the_limits(rule: ClipBand, q: float, ratio: float, sign: float) -> None:
    old_logp = torch.tensor([q], dtype=F64).log()
    adv = torch.tensor([sign], dtype=F64)
    low, high = rule.limits(old_logp, adv)
    out = policy_loss(old_logp + math.log(ratio), old_logp, adv, torch.ones(1), rule=rule)
    assert bool(out.slope != 0) == bool(low <= out.ratio <= high)


def test_clip_higher_and_clip_lower_are_their_published_bands() -> None:
    assert ClipRule.constant(lower=0.2, upper=0.28) == CLIP_HIGHER
    assert band_at(CLIP_LOWER, 0.3)[0] == pytest.approx([0.9])


def test_dual_clip_caps_the_punishment_of_a_grown_token_and_nothing_else() -> None:
    rule = DualClip()
    assert direction(rule, 2.9, -1.0) == pytest.approx(2.9)
    assert direction(rule, 3.1, -1.0) == 0
    assert direction(rule, 0.7, -1.0) == 0
    assert direction(rule, 1.3, 0.5) == 0
    assert direction(rule, 0.1, 1.0) == pytest.approx(0.1)


@steady
@given(q=st.floats(0.01, 1.0), p=st.floats(0.01, 1.0))
def test_dppo_bounds_the_change_of_the_probability(q: float, p: float) -> None:
    (low,), (high,) = band_at(DppoClip(delta=0.2), q)
    if abs(abs(p - q) - 0.2) > 1e-9:
        assert (low <= p / q <= high) == (abs(p - q) <= 0.2)


def test_dcpo_worked_numbers() -> None:
    low, high = band_at(DcpoClip(), 1.0, 0.8, 0.64, 0.5, 0.001)
    assert low == pytest.approx([0.8, 0.5 + 0.5 * math.sqrt(0.2), 0.5, 0.5, 0.5])
    assert high == pytest.approx(
        [0.5 + 0.5 * math.sqrt(1.8), 0.5 + 0.5 * math.sqrt(2), 1.25, 0.5 + 0.5 * math.sqrt(2.6), 10.0]
    )


def test_abc_closes_the_band_on_both_sides_of_both_signs() -> None:
    rule = AbcClip(e1=0.3, e2=0.4, e3=0.1, e4=0.05)
    survives = {
        (1.25, 1.0): True,
        (1.35, 1.0): False,
        (0.65, 1.0): True,
        (0.55, 1.0): False,
        (1.05, -1.0): True,
        (1.15, -1.0): False,
        (0.97, -1.0): True,
        (0.90, -1.0): False,
    }
    for (ratio, sign), expected in survives.items():
        assert (direction(rule, ratio, sign) != 0) == expected, (ratio, sign)
    assert band_at(rule, 0.5) == (pytest.approx([0.6]), pytest.approx([1.3]))


@pytest.mark.parametrize("region", ["E1", "E2", "E3", "E4"])
def test_a_free_region_never_clips_its_own_tokens_and_every_other_as_its_band_does(region) -> None:
    old_logp = torch.tensor([0.05, 0.29, 0.31, 0.69, 0.71, 0.99]).log().repeat(2, 1)
    advantages = torch.tensor([[1.0], [-1.0]]).expand_as(old_logp)
    rare, rewarded = old_logp.exp() < 0.3, advantages > 0
    own = (rare if region in ("E2", "E4") else old_logp.exp() > 0.7) & (
        rewarded if region in ("E1", "E2") else ~rewarded
    )
    low, high = FreeRegion(region).limits(old_logp, advantages)
    plain_low, plain_high = ClipRule.constant().limits(old_logp, advantages)
    assert own.any()
    assert bool((low[own] == 0).all())
    assert bool(high[own].isinf().all())
    assert torch.equal(low[~own], plain_low[~own])
    assert torch.equal(high[~own], plain_high[~own])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DualClip(cap=1.0), r"DualClip\.cap is 1"),
        (lambda: DppoClip(delta=0.0), r"DppoClip\.delta is 0"),
        (lambda: DcpoClip(lower=-0.1), "lower and upper must be at least 0"),
        (lambda: DcpoClip(cap=0.5), "cap at least 1"),
        (lambda: AbcClip(e1=-0.1), "e1 and e3 must be at least 0"),
        (lambda: AbcClip(e4=1.5), r"e4 in \[0, 1\]"),
    ],
)
def test_bad_settings_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "inner", [ClipRule.constant(), ClipRule(SLOPE, SLOPE), DppoClip()], ids=["even", "sloped", "dppo"]
)
@pytest.mark.parametrize(
    "change",
    [DualClip, lambda band: FreeRegion("E1", band), lambda band: CircuitBreaker(band, 0.1, 5.0)],
    ids=["dual", "free", "breaker"],
)
def test_a_changed_band_keeps_what_it_does_not_change(inner, change):
    changed, old_logp = change(inner), torch.linspace(-3, -0.1, 7)
    assert changed.anchored == inner.anchored
    assert changed.per_token == (inner.per_token or isinstance(changed, FreeRegion))
    for ours, theirs in zip(changed.bounds(old_logp), inner.bounds(old_logp), strict=True):
        assert torch.equal(ours, theirs)
