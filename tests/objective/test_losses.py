"""Objectives against naive autograd, aggregation under any cut of the batch, and hostile input."""

import math

import pytest
import torch
from torch import Tensor

from entrostat.objective import (
    ClipBand,
    ClipRule,
    LinearThreshold,
    Objective,
    aggregate,
    policy_loss,
)
from entrostat.objective.losses import settled, token_weights
from entrostat.objective.surrogates import named

PUBLISHED = ClipRule(LinearThreshold(-0.25, 0.5), LinearThreshold(-0.13, 0.3))


class Batch:
    """Random tokens in float64: ratios on both sides of every band, advantages of both signs and 0."""

    def __init__(self, shape: tuple[int, ...] = (6, 40), seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.old_logp = -4 * torch.rand(shape, generator=generator, dtype=torch.float64)
        moved = self.old_logp + 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.logp = moved.clamp_max(0).requires_grad_()
        self.advantages = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.advantages[..., 0] = 0
        self.mask = torch.rand(shape, generator=generator) < 0.8

    def loss(self, rule: ClipBand | None = None, objective: Objective | str = "clip"):
        return policy_loss(
            self.logp,
            self.old_logp,
            self.advantages,
            self.mask,
            rule=rule,
            objective=objective,  # type: ignore[arg-type]
        )


def gradient(per_token: Tensor, logp: Tensor) -> Tensor:
    return torch.autograd.grad(per_token.sum(), logp, retain_graph=True)[0]


def test_clip_equals_the_pessimistic_minimum_in_value_and_gradient() -> None:
    batch = Batch()
    ratio = (batch.logp - batch.old_logp).exp()
    low, high = PUBLISHED.bounds(batch.old_logp)
    naive = -torch.minimum(ratio * batch.advantages, ratio.clamp(low, high) * batch.advantages) * batch.mask
    ours = batch.loss(PUBLISHED).per_token
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(gradient(ours, batch.logp), gradient(naive, batch.logp))


def test_closed_form_has_the_gradient_of_the_detached_threshold() -> None:
    batch = Batch()
    ratio = (batch.logp - batch.old_logp).exp()
    p = batch.logp.detach().exp()
    low = 1 - PUBLISHED.lower.slope * p - PUBLISHED.lower.intercept
    high = 1 + PUBLISHED.upper.slope * p + PUBLISHED.upper.intercept
    naive = -torch.minimum(ratio * batch.advantages, ratio.clamp(low, high) * batch.advantages) * batch.mask
    torch.testing.assert_close(gradient(batch.loss(PUBLISHED).per_token, batch.logp), gradient(naive, batch.logp))


def test_undetached_clip_equals_autograd_through_the_threshold() -> None:
    batch = Batch()
    ratio, p = (batch.logp - batch.old_logp).exp(), batch.logp.exp()
    low = 1 - PUBLISHED.lower.slope * p - PUBLISHED.lower.intercept
    high = 1 + PUBLISHED.upper.slope * p + PUBLISHED.upper.intercept
    adv = batch.advantages
    naive = -torch.where(adv > 0, torch.minimum(ratio, high), torch.maximum(ratio, low)) * adv * batch.mask
    ours = batch.loss(PUBLISHED, "clip_undetached").per_token
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(gradient(ours, batch.logp), gradient(naive, batch.logp))


def test_undetached_clip_restores_from_above_and_pushes_further_from_below() -> None:
    adv = torch.tensor([1.0, -1.0])
    logp = torch.tensor([0.45, 0.1]).log().requires_grad_()
    old_logp = torch.tensor([0.3, 0.3]).log()
    mask = torch.ones(2)
    ours = policy_loss(logp, old_logp, adv, mask, rule=PUBLISHED, objective="clip_undetached")
    direction = -gradient(ours.per_token, logp)
    assert (direction < 0).all()
    assert (gradient(policy_loss(logp, old_logp, adv, mask, rule=PUBLISHED).per_token, logp) == 0).all()


def test_undetached_clip_refuses_a_rule_without_thresholds() -> None:
    class Fixed(ClipBand):
        def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full_like(old_logp, 0.8), torch.full_like(old_logp, 1.2)

    with pytest.raises(ValueError, match=r"clip_undetached.*Fixed"):
        Batch().loss(Fixed(), "clip_undetached")


def test_reinforce_is_never_clipped_and_on_policy_is_the_score_function() -> None:
    batch = Batch()
    ratio = (batch.logp - batch.old_logp).exp()
    out = batch.loss(objective="reinforce")
    torch.testing.assert_close(out.per_token, -ratio * batch.advantages * batch.mask)
    assert not (out.clipped_low | out.clipped_high).any()
    logp = batch.old_logp.clone().requires_grad_()
    on_policy = policy_loss(logp, batch.old_logp, batch.advantages, batch.mask, objective="reinforce")
    torch.testing.assert_close(gradient(on_policy.per_token, logp), -batch.advantages * batch.mask)


def test_every_clip_rule_is_inert_on_policy() -> None:
    batch = Batch()
    logp = batch.old_logp.clone().requires_grad_()
    out = policy_loss(logp, batch.old_logp, batch.advantages, batch.mask, rule=PUBLISHED)
    assert not (out.clipped_low | out.clipped_high).any()
    torch.testing.assert_close(out.slope, torch.ones_like(out.slope))


def test_clip_flags_name_the_side_and_only_masked_in_tokens() -> None:
    old_logp = torch.full((5,), 0.5).log()
    ratio = torch.tensor([1.3, 0.7, 1.3, 0.7, 1.3])
    adv = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    out = policy_loss(old_logp + ratio.log(), old_logp, adv, torch.tensor([1, 1, 1, 1, 0]))
    assert out.clipped_high.tolist() == [True, False, False, False, False]
    assert out.clipped_low.tolist() == [False, True, False, False, False]


def test_what_lies_outside_the_mask_is_never_read() -> None:
    batch = Batch()
    clean = batch.loss(PUBLISHED)
    logp = batch.logp.detach().masked_fill(~batch.mask, math.nan).requires_grad_()
    old_logp = batch.old_logp.masked_fill(~batch.mask, -math.inf)
    adv = batch.advantages.masked_fill(~batch.mask, math.inf)
    dirty = policy_loss(logp, old_logp, adv, batch.mask, rule=PUBLISHED)
    assert torch.equal(dirty.per_token, clean.per_token)
    assert torch.equal(gradient(dirty.per_token, logp), gradient(clean.per_token, batch.logp))


def test_padded_and_packed_tokens_have_the_same_loss() -> None:
    batch = Batch()
    padded = batch.loss(PUBLISHED).per_token[batch.mask]
    keep = batch.mask
    packed = policy_loss(
        batch.logp[keep], batch.old_logp[keep], batch.advantages[keep], torch.ones(int(keep.sum())), rule=PUBLISHED
    )
    assert torch.equal(padded, packed.per_token)


def test_one_advantage_per_sequence_is_spread_over_its_tokens() -> None:
    batch = Batch()
    by_sequence = batch.advantages[:, 1:2]
    narrow = policy_loss(batch.logp, batch.old_logp, by_sequence, batch.mask)
    wide = policy_loss(batch.logp, batch.old_logp, by_sequence.expand_as(batch.logp), batch.mask)
    assert torch.equal(narrow.per_token, wide.per_token)


def test_half_precision_is_computed_in_float32() -> None:
    old_logp = torch.full((3,), -2.0, dtype=torch.bfloat16)
    out = policy_loss(old_logp + 0.125, old_logp, torch.ones(3), torch.ones(3), objective="reinforce")
    assert out.per_token.dtype == torch.float32
    torch.testing.assert_close(out.ratio, torch.full((3,), math.exp(0.125)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logp", "old_logp", "advantages"])
def test_a_number_that_is_not_finite_is_refused_with_name_and_position(name: str, bad: float) -> None:
    values = {key: torch.full((2, 3), -1.0) for key in ("logp", "old_logp", "advantages")}
    values[name][1, 2] = bad
    with pytest.raises(ValueError, match=rf"^{name} is .* at \(1, 2\)"):
        policy_loss(**values, mask=torch.ones(2, 3))


def test_an_overflowing_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ratio is inf at \(0,\)"):
        policy_loss(torch.tensor([-1.0]), torch.tensor([-200.0]), torch.ones(1), torch.ones(1))


def test_an_empty_mask_is_refused() -> None:
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="no token of 6 counts"):
        policy_loss(zeros, zeros, zeros, zeros)
    with pytest.raises(ValueError, match="no token of 6 counts"):
        aggregate(zeros, zeros)


@pytest.mark.parametrize("shape", [(3,), (2,), (3, 2), (1, 2, 3)])
def test_advantages_that_would_broadcast_by_accident_are_refused(shape: tuple[int, ...]) -> None:
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="advantages: shape"):
        policy_loss(zeros, zeros, torch.zeros(shape), zeros + 1)


def test_a_mask_of_another_shape_is_refused() -> None:
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"mask \(3,\)"):
        policy_loss(zeros, zeros, zeros, torch.ones(3))


def test_an_unknown_objective_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'ppo' is no objective.* clip, clip-undetached"):
        Batch().loss(objective="ppo")


def test_aggregation_modes_on_a_worked_batch() -> None:
    per_token = torch.tensor([[1.0, 3.0, 9.0], [4.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert aggregate(per_token, mask).item() == pytest.approx(8 / 3)
    assert aggregate(per_token, mask, "sequence-mean").item() == pytest.approx((2 + 4) / 2)
    assert aggregate(per_token, mask, "constant", denominator=6).item() == pytest.approx(8 / 6)


@pytest.mark.parametrize("mode", ["token-mean", "sequence-mean", "constant"])
def test_micro_batches_with_a_batch_wide_denominator_sum_to_the_undivided_loss(mode) -> None:
    batch = Batch((9, 7))
    per_token = batch.loss().per_token
    denominator = {"token-mean": batch.mask.sum().item(), "sequence-mean": 9, "constant": 63}[mode]
    whole = aggregate(per_token, batch.mask, mode, denominator=denominator)
    if mode != "constant":
        torch.testing.assert_close(whole, aggregate(per_token, batch.mask, mode))
    for cut in ([3, 6], [1, 2, 5]):
        parts = zip(per_token.tensor_split(cut), batch.mask.tensor_split(cut), strict=True)
        total = sum(aggregate(piece, kept, mode, denominator=denominator) for piece, kept in parts)
        torch.testing.assert_close(total, whole)


@pytest.mark.parametrize("mode", ["token-mean", "sequence-mean"])
def test_packed_aggregation_equals_padded(mode) -> None:
    batch = Batch((5, 8))
    per_token = batch.loss().per_token
    rows = torch.arange(5)[:, None].expand(5, 8)
    packed = aggregate(per_token[batch.mask], torch.ones(int(batch.mask.sum())), mode, sequences=rows[batch.mask])
    torch.testing.assert_close(packed, aggregate(per_token, batch.mask, mode))


def test_aggregation_refuses_what_it_cannot_divide() -> None:
    ones = torch.ones(3)
    with pytest.raises(ValueError, match="needs a denominator"):
        aggregate(ones, ones, "constant")
    with pytest.raises(ValueError, match="denominator is 0"):
        aggregate(ones, ones, denominator=0)
    with pytest.raises(ValueError, match="need `sequences`"):
        aggregate(ones, ones, "sequence-mean")
    with pytest.raises(ValueError, match="mode is 'mean'"):
        aggregate(ones, ones, "mean")  # type: ignore[arg-type]


def test_the_default_rule_is_the_constant_fifth_of_ppo() -> None:
    batch = Batch()
    explicit = batch.loss(ClipRule.constant(lower=0.2, upper=0.2))
    assert torch.equal(batch.loss().per_token, explicit.per_token)


@pytest.mark.parametrize(
    ("mode", "denominator"),
    [
        *[(mode, 7.0) for mode in ("token-mean", "sequence-mean", "constant")],
        ("token-mean", None),
        ("sequence-mean", None),
    ],
)
@pytest.mark.parametrize("tokens", [None, 50.0])
def test_token_weights_are_the_gradient_of_the_aggregate(mode, denominator, tokens) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(4, 9, generator=generator) < 0.6
    per_token = torch.randn(4, 9, generator=generator, requires_grad=True)
    (gradient,) = torch.autograd.grad(aggregate(per_token, mask, mode, denominator=denominator), per_token)
    count = float(mask.sum()) if tokens is None else tokens
    weights = token_weights(mask, mode, denominator=denominator, tokens=tokens)
    if not (mode == "token-mean" and denominator is None):
        torch.testing.assert_close(weights, count * gradient)
    else:
        torch.testing.assert_close(weights, mask.float())
    with torch.no_grad():
        torch.testing.assert_close(token_weights(mask, mode, denominator=denominator, tokens=tokens), weights)


def test_what_is_settled_over_a_batch_is_the_same_for_its_pieces() -> None:
    """BAPO's band is that of all tokens; an objective that compares none keeps itself and its rule."""
    generator = torch.Generator().manual_seed(0)
    logp, noise, advantages = torch.randn(3, 4, 9, generator=generator)
    logp, old, mask = logp - 3, logp - 3 + 0.3 * noise, torch.ones(4, 9)
    whole = policy_loss(logp, old, advantages, mask, objective="bapo")
    chosen, rule = settled(named("bapo"), logp, old, advantages, mask)
    pieces = [
        policy_loss(logp[i], old[i], advantages[i], mask[i], objective=chosen, rule=rule).per_token for i in range(4)
    ]
    torch.testing.assert_close(torch.stack(pieces), whole.per_token)
    own = ClipRule.constant(0.1)
    for name, given, expected in (("clip", own, own), ("clip", None, ClipRule()), ("cispo", None, named("cispo").rule)):
        assert settled(named(name), logp, old, advantages, mask, given) == (named(name), expected)


@pytest.mark.parametrize("wrong", ["logp", "old_logp", "mask"])
@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1)])
def test_any_one_of_another_shape_is_refused(wrong: str, shape: tuple[int, ...]) -> None:
    tensors = {name: torch.full((3,), -1.0) for name in ("logp", "old_logp", "advantages", "mask")}
    with pytest.raises(ValueError, match="shapes differ"):
        policy_loss(**{**tensors, wrong: torch.full(shape, -1.0)})
