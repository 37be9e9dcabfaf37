"""The published objectives with a file of their own: each against its formula, and what holds for all of them."""

import math

import pytest
import torch
from torch import Tensor

from entrostat.objective import (
    Bapo,
    ClipRule,
    Cppo,
    Dppo,
    Drpo,
    LinearThreshold,
    RipoClip,
    Vespo,
    aggregate,
    divergence_drift,
    policy_loss,
)
from entrostat.objective.losses import settled
from entrostat.objective.surrogates import named, objective

F64 = torch.float64
NAMES = sorted(set(objective) - {"clip-undetached"})
LENGTHS = torch.tensor([9, 2, 5, 1, 7, 3])


class Batch:
    """Six completions in float64 whose ratios spread from .4 to 2.5, one advantage per completion."""

    def __init__(self, spread: float = 0.4) -> None:
        draw = torch.Generator().manual_seed(0)
        self.mask = torch.arange(9) < LENGTHS[:, None]
        self.old = -3 * torch.rand(6, 9, generator=draw, dtype=F64) - 0.01
        self.logp = (self.old + spread * torch.randn(6, 9, generator=draw, dtype=F64)).clamp_max(-1e-3).requires_grad_()
        self.advantages = torch.tensor([1.0, -0.5, 0.7, -1.3, -0.9, 0.4], dtype=F64)[:, None].expand(6, 9)
        self.ratio = (self.logp - self.old).exp()
        self.p, self.q = self.logp.exp(), self.old.exp()

    def loss(self, chosen, rule=None, **given) -> Tensor:
        return policy_loss(
            self.logp, self.old, self.advantages, self.mask, objective=chosen, rule=rule, **given
        ).per_token

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), self.logp, retain_graph=True)[0]

    def same(self, ours: Tensor, naive: Tensor) -> None:
        torch.testing.assert_close(ours, naive * self.mask)
        torch.testing.assert_close(self.gradient(ours), self.gradient(naive * self.mask))


def test_dppo_masks_what_moves_away_beyond_its_change_of_probability() -> None:
    batch = Batch()
    away = batch.advantages * (batch.ratio - 1) > 0
    kept = ~(away & ((batch.p - batch.q).abs() > 0.05))
    assert 0 < (~kept & batch.mask).sum() < batch.mask.sum()
    weight = batch.ratio.detach().clamp_max(1.2)
    batch.same(batch.loss(Dppo(delta=0.05, cap=1.2)), -batch.advantages * weight * batch.logp * kept)


def test_dppo_by_kl_measures_the_token_against_all_others() -> None:
    batch = Batch()
    p, q = batch.p, batch.q
    kl = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    kept = ~((batch.advantages * (batch.ratio - 1) > 0) & (kl > 0.02))
    assert 0 < (~kept & batch.mask).sum() < batch.mask.sum()
    batch.same(
        batch.loss(Dppo(divergence="kl", delta=0.02)), -batch.advantages * batch.ratio.detach() * batch.logp * kept
    )


def test_the_predicted_drift_is_the_change_of_the_divergence_by_a_step() -> None:
    draw = torch.Generator().manual_seed(1)
    logits, sampler = 2 * torch.randn(2, 40, 6, generator=draw)
    ids = torch.randint(0, 6, (40,), generator=draw)
    moving = logits.clone().requires_grad_()
    kl = (sampler.softmax(-1) * (sampler.log_softmax(-1) - moving.log_softmax(-1))).sum()
    (slope,) = torch.autograd.grad(kl, moving)
    step = torch.nn.functional.one_hot(ids, 6) - logits.softmax(-1)
    torch.testing.assert_close(divergence_drift(logits, sampler, ids), (slope * step).sum(-1), rtol=1e-4, atol=1e-6)


def test_dppo_with_a_predicted_direction_removes_only_what_raises_the_divergence() -> None:
    batch = Batch()
    drift = torch.randn(6, 9, generator=torch.Generator().manual_seed(3), dtype=F64)
    out = policy_loss(
        batch.logp,
        batch.old,
        batch.advantages,
        batch.mask,
        objective=Dppo(delta=0.05, direction="predicted"),
        drift=drift,
    )
    removed = (out.slope == 0) & batch.mask
    far = (batch.p - batch.q).abs() > 0.05
    assert torch.equal(removed, far & (batch.advantages * drift > 0) & batch.mask)
    with pytest.raises(ValueError, match="give `drift`"):
        batch.loss(Dppo(direction="predicted"))


def cppo_kept(batch: Batch, delta: float, budget: float, least: float) -> Tensor:
    """Algorithm 1 of the paper, token by token."""
    kept = torch.ones(6, 9, dtype=torch.bool)
    for row, length in enumerate(LENGTHS.tolist()):
        spent = given = 0.0
        for t in range(length):
            weight = 1 - (1 - least) / max(length - 1, 1) * t
            moved = weight * abs(batch.p[row, t] - batch.q[row, t]).item()
            allowed = min(delta, delta + budget * given - spent)
            away = (batch.advantages[row, t] * (batch.ratio[row, t] - 1)).item() > 0
            kept[row, t] = not away or moved <= allowed
            spent, given = spent + moved, given + weight
    return kept


@pytest.mark.parametrize("delta", [0.02, 0.05])
@pytest.mark.parametrize("budget", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("least", [0.8, 0.4, 0.05])
def test_cppo_is_the_papers_algorithm(delta: float, budget: float, least: float) -> None:
    batch = Batch()
    kept = cppo_kept(batch, delta, budget, least)
    assert (~kept & batch.mask).any()
    batch.same(batch.loss(Cppo(delta, budget, least)), -batch.advantages * batch.ratio * kept)


def test_cppo_with_an_endless_budget_and_equal_weights_is_dppo_by_total_variation() -> None:
    batch = Batch()
    ours = batch.gradient(batch.loss(Cppo(delta=0.05, budget=1e9, least=1.0)))
    torch.testing.assert_close(ours, batch.gradient(batch.loss(Dppo(delta=0.05, cap=1e9))))


def test_drpo_is_the_ratio_less_a_quadratic_and_pulls_back_beyond_its_bound() -> None:
    batch = Batch()
    penalty = batch.advantages.abs() * batch.q * (batch.ratio - 1).square() / (2 * 0.05)
    batch.same(batch.loss(Drpo(epsilon=0.05)), -batch.advantages * batch.ratio + penalty)
    push = -batch.gradient(batch.loss(Drpo(epsilon=0.05))) / batch.advantages
    beyond = (batch.advantages * (batch.p - batch.q) > 0.05) & batch.mask
    away = beyond & (batch.advantages * (batch.ratio - 1) > 0) & ((batch.p - batch.q).abs() > 0.05)
    assert away.any()
    assert (push[away] < 0).all()


def test_up_is_reinforce_for_rewarded_tokens_and_the_clip_for_punished_ones() -> None:
    batch = Batch()
    anchored = (batch.logp - batch.logp.detach()).exp()
    low = batch.ratio.clamp(0.8, 1.2)
    punished = torch.minimum(
        torch.maximum(-batch.advantages * batch.ratio, -batch.advantages * low), -batch.advantages * 3
    )
    naive = torch.where(batch.advantages > 0, -batch.advantages * anchored, punished)
    batch.same(batch.loss("up"), naive)


def test_aspo_turns_the_ratio_of_rewarded_tokens_around() -> None:
    batch = Batch(spread=1.0)
    rewarded = batch.advantages > 0
    clipped = torch.where(rewarded, batch.ratio.clamp_max(1.2), batch.ratio.clamp_min(0.8))
    fixed = clipped.detach()
    soft = torch.where(rewarded, clipped / fixed.square(), clipped)
    over = torch.where(rewarded, 1 / fixed, fixed) > 3
    assert (over & batch.mask & rewarded).any()
    batch.same(batch.loss("aspo"), -batch.advantages * torch.where(over, 3 * batch.logp, soft))


def test_vespo_weighs_a_completion_by_the_product_of_its_ratios() -> None:
    batch = Batch()
    w = (batch.ratio.log() * batch.mask).sum(-1, keepdim=True).exp().detach()
    rewarded = batch.advantages >= 0
    phi = torch.where(rewarded, w**2 * (3 * (1 - w)).exp(), w**3 * (2 * (1 - w)).exp())
    batch.same(batch.loss("vespo"), -batch.advantages * phi * batch.logp)


def test_vespo_stays_finite_for_a_completion_far_away() -> None:
    old = torch.full((1, 200), -5.0, dtype=F64)
    for moved in (-9.0, 4.9):
        out = policy_loss(old + moved, old, torch.ones(1, 1), torch.ones(1, 200), objective=Vespo())
        assert out.slope.abs().max() < 1e-6


def test_luspo_weighs_gspos_sequences_by_their_length() -> None:
    batch = Batch(spread=0.02)
    rule = ClipRule.constant(0.005, 0.005)
    per_sequence = (batch.loss("gspo", rule) / LENGTHS[:, None]).sum(-1)
    ours = aggregate(batch.loss("luspo", rule), batch.mask, "sequence-sum")
    torch.testing.assert_close(ours, (LENGTHS * per_sequence).mean())


def test_a_band_by_probability_is_taken_at_the_geometric_mean_of_the_sequence() -> None:
    batch = Batch(spread=0.02)
    rule = ClipRule(LinearThreshold(-0.005, 0.01), LinearThreshold(-0.005, 0.01))
    out = policy_loss(batch.logp, batch.old, batch.advantages, batch.mask, objective="gspo", rule=rule)
    mean = (batch.old * batch.mask).sum(-1) / LENGTHS
    s = ((batch.logp - batch.old) * batch.mask).sum(-1).div(LENGTHS).exp()
    low, high = rule.limits(mean, batch.advantages[:, 0])
    assert torch.equal((out.clipped_low | out.clipped_high).any(-1), (s < low) | (s > high))


def test_ripo_gives_every_token_the_same_distance() -> None:
    q = torch.tensor([0.002, 0.1, 0.3, 0.9], dtype=F64)
    low, high = RipoClip().bounds(q.log())
    torch.testing.assert_close(q[1:] * (high[1:] - 1).square(), torch.full((3,), 0.05, dtype=F64))
    torch.testing.assert_close(high[0], torch.tensor(6.0, dtype=F64))
    torch.testing.assert_close(
        low, torch.tensor([0.5, 0.5, 1 - math.sqrt(0.05 / 0.3), 1 - math.sqrt(0.05 / 0.9)]).double()
    )


def test_limits_of_a_threshold_are_those_of_the_threshold_at_every_probability() -> None:
    rule = ClipRule(LinearThreshold(-0.6, 0.7), LinearThreshold(-0.5, 0.6), least=0.25, most=0.5)
    draw = torch.Generator().manual_seed(0)
    q, r = torch.rand(2, 20000, generator=draw, dtype=F64)
    r = 2 * r
    p = r * q
    upper, lower = ((t.slope * p + t.intercept).clamp(0.25, 0.5) for t in (rule.upper, rule.lower))
    low, high = rule.bounds(q.log())
    assert torch.equal(r <= high, r <= 1 + upper)
    assert torch.equal(r >= low, r >= 1 - lower)
    assert rule.mix(ClipRule(), 0.5).most == 0.5


@pytest.mark.parametrize("form", ["paper", "code"])
def test_bapo_stops_as_soon_as_rewarded_tokens_have_their_share(form: str) -> None:
    batch = Batch(spread=0.8)
    method = Bapo(form=form, share=0.45)
    _, band = settled(method, batch.logp, batch.old, batch.advantages, batch.mask)
    low, high = (x.item() for x in band.bounds(torch.zeros(1)))
    ratio, up = batch.ratio.detach(), batch.advantages > 0

    def share(low: float, high: float) -> float:
        if form == "code":
            pull = torch.where(up, ratio.clamp_max(high), ratio.clamp_min(low)) * batch.advantages.abs() * batch.mask
        else:
            pull = ratio * batch.advantages.abs() * batch.mask * torch.where(up, ratio <= high, ratio >= low)
        return float(pull[up].sum() / pull.sum())

    assert share(low, high) >= 0.45
    assert share(low - 0.05, high) < 0.45 or low == pytest.approx(0.6)
    assert (low, high) != (0.6, 1.2)


# What holds for every objective


def parts(batch: Batch, name: str, rows: slice, width: int) -> Tensor:
    """The gradient of some completions, cut to `width` tokens and divided by the whole batch."""
    cut = (rows, slice(width))
    mode = named(name).aggregations[0]
    logp = batch.logp.detach()[cut].clone().requires_grad_()
    out = policy_loss(logp, batch.old[cut], batch.advantages[cut], batch.mask[cut], objective=name)
    denominator = float(LENGTHS.sum()) if mode == "token-mean" else 6.0
    aggregate(out.per_token, batch.mask[cut], mode, denominator=denominator).backward()
    whole = torch.zeros(logp.shape[0], 9, dtype=F64)
    whole[:, :width] = logp.grad
    return whole


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"bapo", "nsr"}))
def test_the_gradient_does_not_depend_on_the_cut_into_micro_batches(name: str) -> None:
    batch = Batch()
    whole = parts(batch, name, slice(0, 6), 9)
    pieces = [parts(batch, name, slice(a, b), int(LENGTHS[a:b].max())) for a, b in ((0, 1), (1, 4), (4, 6))]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_what_it_contains_change_nothing(name: str) -> None:
    batch = Batch()
    torch.manual_seed(0)
    clean = batch.loss(name)
    dirty = Batch()
    with torch.no_grad():
        for x in (dirty.logp, dirty.old):
            x[~batch.mask] = math.nan
    dirty.advantages = dirty.advantages.where(batch.mask, math.nan)
    torch.manual_seed(0)
    torch.testing.assert_close(dirty.loss(name), clean)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"nsr"}))
def test_packed_tokens_have_the_loss_of_padded_ones(name: str) -> None:
    batch = Batch()
    rows = torch.arange(6)[:, None].expand(6, 9)[batch.mask]
    packed = policy_loss(
        *(x[batch.mask] for x in (batch.logp, batch.old, batch.advantages)),
        torch.ones(len(rows)),
        objective=name,
        sequences=rows,
    )
    torch.testing.assert_close(packed.per_token, batch.loss(name)[batch.mask])


@pytest.mark.parametrize("adaptive", [False, True])
def test_cppos_budget_is_that_of_the_completion_in_packed_tokens_too(adaptive: bool) -> None:
    batch, method = Batch(), Cppo(adaptive=adaptive, budget=0.05)
    rows = torch.arange(6)[:, None].expand(6, 9)[batch.mask]
    given = [x[batch.mask] for x in (batch.logp, batch.old, batch.advantages)]
    packed = policy_loss(*given, torch.ones(len(rows)), objective=method, sequences=rows)
    torch.testing.assert_close(packed.per_token, batch.loss(method)[batch.mask])


@pytest.mark.parametrize("name", ["sapo", "drpo", "reinforce", "gmpo"])
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    batch, step = Batch(spread=0.1), 1e-6
    ours = batch.gradient(aggregate(batch.loss(name), batch.mask, "sequence-mean"))
    for row, t in ((0, 3), (1, 1), (4, 6)):
        values = []
        for sign in (1, -1):
            moved = batch.logp.detach().clone()
            moved[row, t] += sign * step
            out = policy_loss(moved, batch.old, batch.advantages, batch.mask, objective=name)
            values.append(aggregate(out.per_token, batch.mask, "sequence-mean"))
        torch.testing.assert_close((values[0] - values[1]) / (2 * step), ours[row, t], rtol=1e-6, atol=1e-9)


def test_the_drift_of_each_position_is_its_own_whatever_the_leading_shape() -> None:
    generator = torch.Generator().manual_seed(5)
    logits, sampler = (torch.randn(2, 3, 5, generator=generator) for _ in range(2))
    ids = torch.randint(0, 5, (2, 3), generator=generator)
    whole = divergence_drift(logits, sampler, ids)
    assert whole.shape == ids.shape
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(divergence_drift(logits[i, j], sampler[i, j], ids[i, j]), whole[i, j])
