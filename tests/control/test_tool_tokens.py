"""Tokens of a tool between the model's turns: with them in the batch or taken out, everything is the same."""

import pytest
import torch
from test_controller import REQUIRED

from entrostat import Corrected, EntropyController, mismatch_sums, policy_loss, token_stats, token_sums, turn_sums
from entrostat.control.part import bonus, weighting
from entrostat.objective import aggregate, entropy_bonus
from entrostat.objective.losses import token_weights
from entrostat.objective.regularisers import kl_cov_penalty
from entrostat.objective.surrogates import Aggregation
from entrostat.recipe.methods import CORRECTIONS, OBJECTIVES, STRATEGIES, build
from entrostat.tokens import TokenStats

MASK = torch.tensor(
    [
        [1, 1, 0, 0, 1, 1, 1, 0],
        [1, 0, 1, 1, 0, 0, 1, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 1, 0, 0, 0],
    ]
)
OWN = MASK.bool()
WIDTH = int(MASK.sum(1).max())
ADVANTAGES = torch.tensor([[1.0], [-0.7], [0.4], [-1.2]], dtype=torch.float64)
HOSTILE = (torch.nan, torch.inf, -torch.inf, 1e9)


def without_tools(x):
    """The model's tokens alone (B, T'), each row's in their order and then zeros."""
    short = x.new_zeros(len(x), WIDTH)
    for row, (values, own) in enumerate(zip(x, OWN, strict=True)):
        short[row, : int(own.sum())] = values[own]
    return short


def with_values(x, value):
    return torch.where(OWN, x, torch.full_like(x, value))


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = MASK.shape
    stats = token_stats(
        torch.randn(*shape, 9, generator=generator, dtype=torch.float64), torch.randint(9, shape, generator=generator)
    )
    old, sampler = (stats.logp + 0.25 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return stats, old, sampler


def each(stats, change):
    return TokenStats(*(change(getattr(stats, name)) for name in ("logp", "entropy", "collision", "correction")))


def both(run):
    """What `run(stats, old_logp, sampler_logp, mask)` gives of the whole batch, for each value at a tool's tokens, and
    of the batch without tools. Tensors (B, T) are compared at the model's tokens."""
    stats, old, sampler = tensors()
    short = run(each(stats, without_tools), *(without_tools(x) for x in (old, sampler, MASK)))
    for value in HOSTILE:
        filled = [each(stats, lambda x: with_values(x, value))] + [with_values(x, value) for x in (old, sampler)]  # noqa: B023
        long = run(*filled, MASK)
        assert len(long) == len(short)
        for one, other in zip(long, short, strict=True):
            if isinstance(one, torch.Tensor) and one.shape == MASK.shape:
                assert other.shape == (len(MASK), WIDTH)
                torch.testing.assert_close(one[OWN], other[without_tools(MASK).bool()], rtol=1e-9, atol=1e-12)
            elif isinstance(one, torch.Tensor):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
            else:
                assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_its_loss_its_gradient_and_its_record(name):
    drawn = {"nsr": {"keep": 1.0}}  # its draw is by position
    objective = build(OBJECTIVES, {"name": name, **drawn.get(name, {})})

    def run(stats, old, _, mask):
        logp = stats.logp.clone().requires_grad_()
        out = policy_loss(logp, old, ADVANTAGES, mask, objective=objective, entropy=stats.entropy)
        aggregated = [aggregate(out.per_token, mask, mode, denominator=7.0) for mode in Aggregation.__args__]
        (slope,) = torch.autograd.grad(sum(aggregated), logp)
        sums = token_sums(stats, ADVANTAGES, out, mask)
        outside = ~mask.bool()
        assert not slope[outside].any()
        assert not out.per_token[outside].any()
        return (
            *(part.detach() for part in aggregated),
            slope,
            out.per_token.detach(),
            out.slope,
            out.clipped_low.double(),
            out.clipped_high.double(),
            sums.totals,
            sums.lowest,
        )

    both(run)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_clip_band(name):
    def run(stats, old, _, mask):
        part = build(STRATEGIES, {"name": name, **REQUIRED.get(name, {})})
        controller = EntropyController(part, total_steps=10)
        out = policy_loss(stats.logp, old, ADVANTAGES, mask, rule=controller.rule())
        return out.per_token, out.clipped_low.double(), out.clipped_high.double()

    both(run)


@pytest.mark.parametrize("name", weighting)
def test_every_reweighting(name):
    def run(stats, old, _, mask):
        torch.manual_seed(0)
        controller = EntropyController(build(weighting, {"name": name, **REQUIRED.get(name, {})}), total_steps=10)
        for step, entropy in enumerate((1.0, 0.6, 0.4), 1):
            controller.observe(step, entropy, 1)
        ours = controller.weights(
            stats, ADVANTAGES.expand_as(old), mask, old_logp=old, old_entropy=stats.entropy * 1.03
        )
        assert (ours[~mask.bool()] == 1).all()
        return (ours,)

    both(run)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_every_correction_and_the_record_of_the_mismatch(name):
    def run(stats, old, sampler, mask):
        controller = EntropyController(Corrected(build(CORRECTIONS, {"name": name})), total_steps=10)
        factors = controller.corrected(stats, ADVANTAGES.expand_as(old), mask, old_logp=old, sampler_logp=sampler)
        sums = mismatch_sums(old, sampler, mask, factors=factors)
        return factors, sums.totals, sums.lowest

    both(run)


def test_the_terms_of_a_loss_and_the_weights_of_an_aggregation():
    assert set(bonus) == {"constant", "adaptive"}  # which act through `entropy_bonus` alone

    def run(stats, old, _, mask):
        weights = [token_weights(mask, mode, denominator=4.0) for mode in Aggregation.__args__ if mode != "token-mean"]
        return (
            entropy_bonus(stats.entropy, mask, 0.1),
            kl_cov_penalty(stats.logp, old, ADVANTAGES.expand_as(old), mask, 0.3, 1.0),
            *weights,
        )

    both(run)


def test_turns_are_what_the_tools_cut():
    stats, *_ = tensors()
    record = turn_sums(stats, ADVANTAGES, MASK).metrics()
    assert record["turns_per_completion"] == pytest.approx((2 + 3 + 1 + 2) / 4)
    assert record["turns"]["3"]["completions"] == pytest.approx(1 / 4)
