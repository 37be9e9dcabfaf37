"""Entropy flow is what a step on the trained loss does, to first order, whatever is in the loss."""

from itertools import product

import pytest
import torch

from entrostat.entropy import bonus_flow, entropy_flow, kl_flow, polarity, sensitivity
from entrostat.objective import (
    ClipRule,
    aggregate,
    entropy_bonus,
    kl_cov_penalty,
    kl_to_reference,
    policy_loss,
)
from entrostat.objective.losses import token_weights
from entrostat.tokens import TokenStats, token_stats

F64 = torch.float64
MODES = ("token-mean", "sequence-mean", "constant")
EXTRAS = ("nothing", "bonus", "exact KL", "k3", "KL-Cov", "correction", "bonus and KL")
STEP = 1e-4


class World:
    """Sequences of very unequal length whose every token has logits of its own."""

    def __init__(self, seed: int = 0, temperature: float = 1.0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.temperature = temperature
        self.logits = (2 * torch.randn(8, 12, 9, generator=draw, dtype=F64)).requires_grad_()
        self.reference = self.logits.detach() + torch.randn(8, 12, 9, generator=draw, dtype=F64)
        self.ids = torch.randint(9, (8, 12), generator=draw)
        self.advantages = torch.randn(8, 1, generator=draw, dtype=F64).expand(8, 12)
        self.mask = torch.arange(12) < torch.tensor([1, 2, 12, 3, 12, 1, 7, 2])[:, None]
        self.correction = 0.2 + torch.rand(8, 12, generator=draw, dtype=F64)
        self.stats = self.read(self.logits, entropy_grad=True)
        self.old = self.stats.logp.detach() + 0.3 * torch.randn(8, 12, generator=draw, dtype=F64)
        self.sampler = self.read(self.reference).logp

    def read(self, logits, entropy_grad: bool = False) -> TokenStats:
        return token_stats(logits, self.ids, self.temperature, entropy_grad)

    def per_token(self, extra: str) -> torch.Tensor:
        logp = self.stats.logp
        rule = None if extra == "KL-Cov" else ClipRule()
        objective = "reinforce" if extra == "KL-Cov" else "clip"
        out = policy_loss(logp, self.old, self.advantages, self.mask, rule=rule, objective=objective)
        loss = out.per_token * (self.correction if extra == "correction" else 1)
        if "bonus" in extra:
            loss = loss + entropy_bonus(self.stats.entropy, self.mask, 0.3)
        if extra in ("exact KL", "bonus and KL"):
            loss = loss + 0.4 * kl_to_reference(self.logits, self.reference, self.temperature)
        if extra == "k3":
            loss = loss + 0.4 * ((self.sampler - logp).exp() - 1 - (self.sampler - logp))
        if extra == "KL-Cov":
            loss = loss + kl_cov_penalty(logp, self.old, self.advantages, self.mask, share=0.3)
        return loss

    def scalar(self, mode: str, extra: str) -> torch.Tensor:
        return aggregate(self.per_token(extra), self.mask, mode, denominator=96.0 if mode == "constant" else None)

    def change(self, loss: torch.Tensor) -> torch.Tensor:
        """What a small step on the tempered logits does to the entropy of each token, per unit of step."""
        (pull,) = torch.autograd.grad(loss, self.logits, retain_graph=True)
        moved = self.logits.detach() - STEP * self.temperature**2 * pull
        return (self.read(moved).entropy - self.stats.entropy.detach()) / STEP


@pytest.mark.parametrize(("mode", "extra"), [*product(MODES, EXTRAS)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_flow_of_the_trained_loss_is_the_change_of_the_entropy_under_every_aggregation(mode, extra, temperature):
    world = World(temperature=temperature)
    loss = world.scalar(mode, extra)
    change = world.change(loss)
    whole = ("bonus" in extra) or ("exact" in extra)
    logits = world.logits if whole else None
    flow = entropy_flow(world.stats, world.advantages, loss, logits=logits, temperature=temperature)
    torch.testing.assert_close(flow, change, rtol=2e-3, atol=2e-5)
    inside = torch.stack([flow[world.mask], change[world.mask]])
    assert torch.corrcoef(inside)[0, 1] > 0.9999
    assert (flow[~world.mask] == 0).all()


def test_logits_and_statistics_agree_where_both_know_the_flow():
    world = World()
    loss = world.scalar("sequence-mean", "k3")
    by_logits = entropy_flow(world.stats, world.advantages, loss, logits=world.logits)
    torch.testing.assert_close(by_logits, entropy_flow(world.stats, world.advantages, loss))


@pytest.mark.parametrize("mode", MODES)
def test_the_parts_that_an_engine_adds_up_are_the_flow_of_the_whole_loss(mode):
    world, stats = World(), None
    loss = world.scalar(mode, "bonus and KL")
    stats = world.stats
    out = policy_loss(stats.logp, world.old, world.advantages, world.mask, rule=ClipRule())
    denominator = 96.0 if mode == "constant" else None
    shares = token_weights(world.mask, mode, denominator=denominator)
    terms = 0.3 * bonus_flow(world.logits) + 0.4 * kl_flow(world.logits, world.reference)
    summed = shares * (entropy_flow(stats, world.advantages, out) + terms)
    whole = entropy_flow(stats, world.advantages, loss, logits=world.logits)
    torch.testing.assert_close(summed / world.mask.sum(), whole, rtol=1e-5, atol=1e-7)


def test_before_aggregation_it_is_slope_times_polarity_inside_the_mask_and_nothing_where_clipped():
    world = World()
    out = policy_loss(world.stats.logp, world.old, world.advantages, world.mask, rule=ClipRule())
    flow = entropy_flow(world.stats, world.advantages, out)
    clipped = out.clipped_low | out.clipped_high
    assert clipped.any()
    assert (flow[clipped | ~world.mask] == 0).all()
    live = world.mask & ~clipped
    expected = out.ratio * world.advantages * sensitivity(world.stats)
    torch.testing.assert_close(flow[live], expected[live])
    assert not flow.requires_grad


def test_token_weights_are_one_under_token_mean_and_sum_to_the_tokens_under_any_mean():
    mask = World().mask
    assert torch.equal(token_weights(mask), mask.float())
    by_sequence = token_weights(mask, "sequence-mean")
    torch.testing.assert_close(by_sequence.sum(), mask.sum().float())
    torch.testing.assert_close(by_sequence.sum(-1), torch.full((8,), mask.sum() / 8))
    halves = [token_weights(part, "sequence-mean", denominator=8, tokens=float(mask.sum())) for part in mask.split(4)]
    torch.testing.assert_close(torch.cat(halves), by_sequence)


def test_a_padded_vocabulary_changes_no_flow():
    logits, reference = torch.randn(2, 3, 4, 7, generator=torch.Generator().manual_seed(0)).unbind(0)
    wide, other = (torch.cat([x, x.new_full((3, 4, 2), -torch.inf)], -1) for x in (logits, reference))
    torch.testing.assert_close(kl_flow(wide, other), kl_flow(logits, reference))
    torch.testing.assert_close(bonus_flow(wide), bonus_flow(logits))


def test_a_loss_whose_flow_cannot_be_known_is_refused():
    world = World()
    with pytest.raises(ValueError, match=r"entropy bonus.*give logits"):
        entropy_flow(world.stats, world.advantages, world.scalar("token-mean", "bonus"))
    with pytest.raises(ValueError, match=r"does not depend on stats\.logp"):
        entropy_flow(world.stats, world.advantages, torch.ones(()))
    elsewhere = World(seed=1).scalar("token-mean", "nothing")
    with pytest.raises(ValueError, match=r"does not depend on stats\.logp"):
        entropy_flow(world.stats, world.advantages, elsewhere)
    assert polarity(world.stats, world.advantages).shape == world.mask.shape
