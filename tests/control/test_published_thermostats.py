"""REPO-R, ADAPO, MAI's controller and AEPO against their rules."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parts import told, weights_of

from entrostat.control import Adapo, Aepo, Curve, EntropyController, Mai, RepoR
from entrostat.control.mai import CircuitBreaker
from entrostat.objective import ClipRule, policy_loss
from entrostat.tokens import token_stats

TOTAL = 100
LOGITS = 3 * torch.randn(300, 20, generator=torch.Generator().manual_seed(0))
STATS = token_stats(LOGITS, torch.arange(300) % 20)
ADVANTAGES = torch.randn(300, generator=torch.Generator().manual_seed(1))
MASK = torch.ones(300, dtype=torch.bool)
PARTS = {
    "repo-r": lambda: RepoR(0.5),
    "adapo": lambda: Adapo(0.5),
    "mai": lambda: Mai(0.5),
    "aepo": lambda: Aepo(0.3, 0.6),
}


def observed(part, entropies):
    for step, entropy in enumerate(entropies, start=1):
        told(part, step, TOTAL, entropy)
    return part


# --- REPO-R ---


@pytest.mark.parametrize("entropies", [[0.1] * 30, [0.9] * 30], ids=["below", "above"])
def test_repo_r_rescales_by_ln_p_and_turns_no_advantage(entropies) -> None:
    part = observed(RepoR(0.5, most=0.4), entropies)
    z = part.coefficient
    assert z == (0.4 if entropies[0] < 0.5 else -0.4)
    wanted = torch.where(ADVANTAGES > 0, ADVANTAGES * (1 - z * STATS.logp), ADVANTAGES * (1 + z * STATS.logp))
    rescaled = ADVANTAGES * weights_of(part, STATS, ADVANTAGES, MASK)
    kept = wanted * ADVANTAGES > 0
    assert torch.allclose(rescaled[kept], wanted[kept])
    assert (rescaled[~kept] == 0).all()
    assert (~kept).any()


def test_repo_rs_coefficient_doubles_and_halves_and_turns_at_its_least() -> None:
    part = RepoR(0.5, least=0.01, most=0.05)
    seen = []
    for step, entropy in enumerate([0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1], start=1):
        told(part, step, TOTAL, entropy)
        seen.append(part.coefficient)
    assert seen == pytest.approx([0.02, 0.04, 0.05, 0.025, 0.0125, -0.01, -0.02, -0.04, -0.05, -0.025])


@given(entropies=st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_repo_rs_coefficient_stays_in_its_range(entropies) -> None:
    assert 1e-4 <= abs(observed(RepoR(0.5), entropies).coefficient) <= 0.05


def test_repo_r_follows_a_curve() -> None:
    part = RepoR(Curve(((0.0, 1.0), (0.1, 0.1))))
    assert told(part, 1, TOTAL, 0.5).coefficient > 0
    for step in range(10, 14):
        told(part, step, TOTAL, 0.5)
    assert part.coefficient < 0


# --- ADAPO and MAI ---


@pytest.mark.parametrize("make", [lambda: Adapo(0.5), lambda: Mai(0.5)], ids=["adapo", "mai"])
def test_the_upper_threshold_widens_below_the_target_narrows_above_and_stays_in_its_range(make) -> None:
    def upper(part) -> float:
        return float(part.clip().bounds(torch.zeros(1))[1])

    start, low = upper(make()), upper(observed(make(), [0.1] * 5))
    assert low > start
    assert upper(observed(make(), [0.1] * 5 + [0.9] * 5)) == pytest.approx(start)
    ends = [float(band.bounds(torch.zeros(1))[1]) for band in make().bands()]
    assert upper(observed(make(), [0.1] * 300)) == pytest.approx(max(ends))
    assert upper(observed(make(), [0.9] * 300)) == pytest.approx(min(ends))
    assert float(low) == upper(observed(make(), [0.1] * 5))


def test_mais_band_is_symmetric_in_ln_r_and_k_is_added_to_its_upper_bound() -> None:
    low, high = Mai(0.5, eps=0.2).clip().bounds(torch.zeros(1))
    assert low.item() * high.item() == pytest.approx(1)
    part = observed(Mai(0.5, eps=0.2, step=0.1, most=0.25), [0.1, 0.1, 0.1])
    low, high = part.clip().bounds(torch.zeros(1))
    assert (low.item(), high.item()) == pytest.approx((0.8, 1.25 + 0.25))


def test_the_circuit_breaker_is_the_outer_clip_in_both_branches() -> None:
    """Against autograd: min(r' A, clip(r', band) A) with r' = clip(r, least, most)."""
    logp = torch.linspace(-4, 4, 81, requires_grad=True)
    old = torch.zeros(81)
    rule = CircuitBreaker(ClipRule.constant(0.2, 0.2), 0.5, 3.0)
    for sign in (1.0, -1.0):
        advantages = torch.full((81,), sign)
        (found,) = torch.autograd.grad(
            policy_loss(logp, old - 0.0, advantages, torch.ones(81, dtype=torch.bool), rule=rule).per_token.sum(), logp
        )
        outer = (logp - old).exp().clamp(0.5, 3.0)
        surrogate = torch.minimum(outer * advantages, outer.clamp(0.8, 1.2) * advantages)
        (expected,) = torch.autograd.grad(-surrogate.sum(), logp)
        assert torch.allclose(found, expected, atol=1e-6)
        assert (found == 0).any()
        assert (found != 0).any()


# --- AEPO ---


def test_aepos_hysteresis_leaves_out_punished_tokens_from_high_down_to_low() -> None:
    part, off = Aepo(0.3, 0.6), []
    for step, entropy in enumerate([0.5, 0.61, 0.5, 0.3, 0.29, 0.5, 0.7], start=1):
        told(part, step, TOTAL, entropy)
        weights = weights_of(part, STATS, ADVANTAGES, MASK)
        assert (weights[ADVANTAGES > 0] == 1).all()
        off.append(bool((weights[ADVANTAGES < 0] == 0).all()))
    assert off == [False, True, True, True, False, False, True]


# --- all ---


@pytest.mark.parametrize("name", PARTS)
def test_a_state_resumes(name) -> None:
    course = [0.1, 0.4, 0.8, 0.9, 0.45, 0.2, 0.7, 0.7]
    whole, before, after = (EntropyController(PARTS[name](), total_steps=TOTAL) for _ in range(3))
    for step, entropy in enumerate(course, start=1):
        whole.observe(step, entropy, 1)
        (before if step < 5 else after).observe(step, entropy, 1)
        if step == 4:
            after.load_state_dict(before.state_dict())
    assert after.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepoR(0.0), r"RepoR\.target is 0\.0"),
        (lambda: RepoR(math.nan), r"RepoR\.target"),
        (lambda: RepoR(Curve(((0.0, 1.0),), unit="start")), "this method reads nats"),
        (lambda: RepoR(0.5, least=0.1, most=0.1), "0 < least < most"),
        (lambda: Adapo(0.5, factor=1.0), "factor above 1"),
        (lambda: Adapo(0.5, start=2.0), "least <= start <= most"),
        (lambda: Mai(0.5, step=0.0), "step and most above 0"),
        (lambda: Mai(0.5, eps=1.0), r"eps in \(0, 1\)"),
        (lambda: Mai(0.5, ratio_most=1.0), r"give 0 <= least < 1 < most"),
        (lambda: Aepo(0.5, 0.5), "0 < low < high"),
    ],
)
def test_settings_out_of_range_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
