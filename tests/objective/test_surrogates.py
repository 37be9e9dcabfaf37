"""The other objectives against naive autograd and by worked numbers."""

import math

import pytest
import torch
from torch import Tensor

from entrostat.objective import (
    AbcClip,
    Bapo,
    CeGppo,
    Cispo,
    Clip,
    ClipRule,
    DualClip,
    Gmpo,
    Gspo,
    LinearThreshold,
    Nsr,
    Sapo,
    Tokens,
    aggregate,
    policy_loss,
)
from entrostat.objective.surrogates import objective

F64 = torch.float64
RULE = ClipRule(LinearThreshold(-0.25, 0.5), LinearThreshold(-0.13, 0.3))
NAMES = sorted(objective)


class Batch:
    """Random tokens in float64 with ratios on both sides of the band; one advantage a sequence if asked."""

    def __init__(self, shape: tuple[int, int] = (8, 30), by_sequence: bool = False, spread: float = 0.4) -> None:
        generator = torch.Generator().manual_seed(0)
        self.old_logp = -4 * torch.rand(shape, generator=generator, dtype=F64)
        moved = self.old_logp + spread * torch.randn(shape, generator=generator, dtype=F64)
        self.logp = moved.clamp_max(0).requires_grad_()
        adv = torch.randn(shape, generator=generator, dtype=F64)
        self.advantages = adv[:, :1].expand(shape) if by_sequence else adv
        self.mask = torch.rand(shape, generator=generator) < 0.8
        self.ratio = (self.logp - self.old_logp).exp()

    def loss(self, objective, rule=RULE):
        return policy_loss(self.logp, self.old_logp, self.advantages, self.mask, rule=rule, objective=objective)

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), self.logp, retain_graph=True)[0]

    def same(self, ours: Tensor, naive: Tensor) -> None:
        naive = naive * self.mask
        torch.testing.assert_close(ours, naive)
        torch.testing.assert_close(self.gradient(ours), self.gradient(naive))


@pytest.mark.parametrize("name", NAMES)
def test_slope_is_the_ratio_that_the_gradient_sees(name: str) -> None:
    batch = Batch()
    out = batch.loss(name)
    expected = torch.where(batch.mask, -batch.advantages * out.slope, 0)
    torch.testing.assert_close(batch.gradient(out.per_token), expected)


@pytest.mark.parametrize("name", NAMES)
def test_on_policy_every_objective_is_the_policy_gradient(name: str) -> None:
    batch = Batch()
    logp = batch.old_logp.clone().requires_grad_()
    rule = RULE if name == "clip-undetached" else None
    out = policy_loss(logp, batch.old_logp, batch.advantages, batch.mask, objective=name, rule=rule)
    (gradient,) = torch.autograd.grad(out.per_token.sum(), logp)
    torch.testing.assert_close(gradient, -batch.advantages * batch.mask)
    assert not (out.clipped_low | out.clipped_high).any()


def test_cispo_weighs_the_log_probability_by_the_detached_clipped_ratio() -> None:
    batch = Batch()
    low, high = RULE.bounds(batch.old_logp)
    weight = batch.ratio.clamp(low, high).detach()
    batch.same(batch.loss("cispo").per_token, -weight * batch.advantages * batch.logp)


@pytest.mark.parametrize("name", ["clip", "ce-gppo", "cispo"])
def test_the_flags_of_a_band_say_where_the_ratio_is_beyond_it(name: str) -> None:
    batch = Batch()
    out = batch.loss(name)
    sides = RULE.bounds if name == "cispo" else lambda old: RULE.limits(old, batch.advantages)
    low, high = sides(batch.old_logp)
    assert torch.equal(out.clipped_low, (batch.ratio < low) & batch.mask)
    assert torch.equal(out.clipped_high, (batch.ratio > high) & batch.mask)
    assert out.clipped_low.any()
    assert out.clipped_high.any()


def test_cispo_by_default_caps_the_weight_at_five_and_has_no_lower_bound() -> None:
    old_logp = torch.full((2,), -9.0, dtype=F64)
    out = policy_loss(old_logp + torch.tensor([8.0, -8.0]), old_logp, torch.ones(2), torch.ones(2), objective=Cispo())
    torch.testing.assert_close(out.slope, torch.tensor([5.0, math.exp(-8)], dtype=F64))


def test_sapo_is_the_soft_gate() -> None:
    batch = Batch()
    tau = torch.where(batch.advantages > 0, 1.0, 1.05)
    gate = torch.sigmoid(tau * (batch.ratio - 1)) * 4 / tau
    batch.same(batch.loss("sapo").per_token, -gate * batch.advantages)


def test_sapo_fades_the_gradient_far_from_one_and_faster_for_punished_tokens() -> None:
    adv = torch.tensor([1.0, -1.0], dtype=F64)
    old_logp = torch.full((2,), -5.0, dtype=F64)
    slope = policy_loss(old_logp + math.log(8.0), old_logp, adv, torch.ones(2), objective="sapo").slope / 8.0
    assert slope[1] < slope[0] < 0.01


def test_ce_gppo_keeps_a_bounded_gradient_beyond_the_band() -> None:
    batch = Batch()
    low, high = RULE.limits(batch.old_logp, batch.advantages)
    fixed = batch.ratio.detach()
    bound = fixed.clamp(low, high)
    factor = torch.where(fixed < low, 0.75, 1.0)
    naive = torch.where(bound == fixed, batch.ratio, factor * bound / fixed * batch.ratio)
    batch.same(batch.loss("ce_gppo").per_token, -naive * batch.advantages)


@pytest.mark.parametrize("objective", [CeGppo(), Nsr(width=10.0, keep=1.0)], ids=["ce-gppo", "nsr"])
@pytest.mark.parametrize("rule", [DualClip(RULE, cap=1.5), AbcClip()], ids=["dual-clip", "abc"])
def test_beyond_the_second_side_of_a_band_there_is_no_gradient_as_under_the_clip(objective, rule) -> None:
    batch = Batch(spread=0.8)
    clip, out = batch.loss("clip", rule), batch.loss(objective, rule)
    second = (clip.clipped_low & (batch.advantages > 0)) | (clip.clipped_high & (batch.advantages < 0))
    first = (clip.clipped_low | clip.clipped_high) & ~second
    assert second.any() and first.any()  # noqa: PT018
    assert (out.slope[second] == 0).all()
    assert (out.slope[first] > 0).all()
    assert (out.clipped_low | out.clipped_high)[second].all()


def test_ce_gppo_with_zero_factors_has_the_gradient_of_the_clip() -> None:
    batch = Batch()
    ours = batch.gradient(batch.loss(CeGppo(punished=0.0, rewarded=0.0)).per_token)
    torch.testing.assert_close(ours, batch.gradient(batch.loss("clip").per_token))


def test_nsr_rescues_about_its_share_of_the_tokens_just_outside_and_none_further_out() -> None:
    torch.manual_seed(0)
    batch = Batch((200, 60))
    clip, out = batch.loss("clip"), batch.loss(Nsr(width=0.1, keep=0.3))
    cut = clip.clipped_low | clip.clipped_high
    low, high = RULE.limits(batch.old_logp, batch.advantages)
    near = cut & ((clip.ratio - clip.ratio.clamp(low, high)).abs() <= 0.1)
    rescued = cut & (out.slope != 0)
    assert not (rescued & ~near).any()
    assert abs(rescued.sum() / near.sum() - 0.3) < 0.05
    torch.testing.assert_close(out.slope[rescued], out.ratio[rescued])
    assert torch.equal(out.clipped_low | out.clipped_high, cut & ~rescued)


def test_nsr_is_the_clip_when_it_keeps_nothing() -> None:
    batch = Batch()
    assert torch.equal(batch.loss(Nsr(keep=0.0)).per_token, batch.loss(Clip()).per_token)


def test_gspo_has_the_gradient_of_the_clipped_sequence_ratio() -> None:
    batch = Batch(by_sequence=True, spread=0.3)
    rule = ClipRule.constant(0.02, 0.03)
    length = batch.mask.sum(-1)
    s = (((batch.logp - batch.old_logp) * batch.mask).sum(-1) / length).exp()
    adv = batch.advantages[:, 0]
    naive = -torch.minimum(s * adv, s.clamp(0.98, 1.03) * adv).mean()
    out = batch.loss("gspo", rule)
    ours = aggregate(out.per_token, batch.mask, "sequence-mean")
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(batch.gradient(ours), batch.gradient(naive))
    assert 0 < (out.clipped_low | out.clipped_high).sum() < batch.mask.sum()


def test_gmpo_has_the_gradient_of_the_geometric_mean_of_clipped_ratios() -> None:
    batch = Batch(by_sequence=True, spread=0.6)
    adv = batch.advantages[:, 0]
    log_ratio = batch.logp - batch.old_logp
    clipped = torch.where(batch.advantages > 0, log_ratio.clamp_max(0.4), log_ratio.clamp_min(-0.4))
    g = ((clipped * batch.mask).sum(-1) / batch.mask.sum(-1)).exp()
    naive = -(g * adv).mean()
    ours = aggregate(batch.loss("gmpo", None).per_token, batch.mask, "sequence-mean")
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(batch.gradient(ours), batch.gradient(naive))


@pytest.mark.parametrize("objective", [Gspo(), Gmpo()])
def test_packed_sequences_have_the_loss_of_padded_ones(objective) -> None:
    batch = Batch(by_sequence=True)
    padded = batch.loss(objective).per_token[batch.mask]
    rows = torch.arange(8)[:, None].expand(8, 30)[batch.mask]
    packed = policy_loss(
        batch.logp[batch.mask],
        batch.old_logp[batch.mask],
        batch.advantages[batch.mask],
        torch.ones(len(rows)),
        rule=RULE,
        objective=objective,
        sequences=rows,
    )
    torch.testing.assert_close(packed.per_token, padded)


@pytest.mark.parametrize("objective", [Gspo(), Gmpo()])
def test_packed_tokens_without_sequence_numbers_are_refused(objective) -> None:
    ones = torch.ones(3)
    with pytest.raises(ValueError, match="need `sequences`"):
        policy_loss(-ones, -ones, ones, ones, objective=objective)


class Punished:
    """Tokens of which most of the weight is punished: ratios r and advantages, q = .1 for all."""

    def __init__(self, ratios: list[float], advantages: list[float]) -> None:
        self.old_logp = torch.full((len(ratios),), 0.1, dtype=F64).log()
        self.logp = self.old_logp + torch.tensor(ratios, dtype=F64).log()
        self.advantages = torch.tensor(advantages, dtype=F64)

    def band(self, mask: Tensor | None = None) -> tuple[float, float]:
        """The lower and the upper bound that BAPO ends at."""
        everything = torch.ones(len(self.logp), dtype=torch.bool) if mask is None else mask.bool()
        log_ratio = self.logp - self.old_logp
        tokens = Tokens(
            self.logp, self.old_logp, log_ratio, log_ratio.exp(), self.advantages, everything, ClipRule(), None
        )
        low, high = Bapo().band(tokens).bounds(torch.zeros(1))
        return low.item(), high.item()


def test_bapo_leaves_a_balanced_batch_its_widest_band() -> None:
    assert Punished([1.0, 1.0], [1.0, -1.0]).band() == pytest.approx((0.6, 1.2))


def test_bapo_raises_the_lower_bound_until_punished_tokens_drop_out() -> None:
    low, high = Punished([1.0, 0.7, 0.95], [1.0, -1.0, -0.5]).band()
    assert low == pytest.approx(0.75)
    assert high == pytest.approx(1.2)


def test_bapo_raises_the_upper_bound_when_the_lower_one_is_at_its_end() -> None:
    low, high = Punished([1.0, 1.5, 1.0], [0.5, 1.0, -1.5]).band()
    assert low == pytest.approx(0.9)
    assert 1.5 <= high <= 1.55


def test_bapo_ends_at_its_widest_when_nothing_balances() -> None:
    assert Punished([1.0, 1.0], [-1.0, -1.0]).band() == pytest.approx((0.9, 3.0))


def test_bapo_counts_masked_tokens_only() -> None:
    batch = Punished([1.0, 1.0, 1.0], [1.0, -1.0, -9.0])
    assert batch.band(torch.tensor([1, 1, 0])) == pytest.approx((0.6, 1.2))


def test_bapo_is_the_clip_in_its_band_whatever_the_callers_rule() -> None:
    batch = Batch()
    out = batch.loss("bapo", ClipRule.constant(0.01, 0.01))
    alive = (out.slope != 0) & batch.mask
    assert out.ratio[alive & (batch.advantages < 0)].min() >= 0.6
    torch.testing.assert_close(out.slope[alive], out.ratio[alive])
    kept = (out.slope * batch.advantages)[batch.mask]
    assert kept.clamp_min(0).sum() >= 0.5 * kept.abs().sum()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sapo(tau_rewarded=0.0), "Sapo.*positive"),
        (lambda: CeGppo(punished=-1.0), "CeGppo.*at least 0"),
        (lambda: Nsr(keep=1.5), "Nsr.*probability"),
        (lambda: Bapo(low=0.95), "low <= low_max"),
        (lambda: Bapo(share=1.0), r"share in \(0, 1\)"),
        (lambda: Bapo(step=0.0), "Bapo"),
    ],
)
def test_bad_settings_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
