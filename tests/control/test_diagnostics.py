"""The record of a step: it adds over any cut of the batch, its parts add up, and it is plain JSON."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from entrostat.control import TokenSums, token_sums
from entrostat.entropy import entropy_flow, regions
from entrostat.objective import ClipRule, LinearThreshold, policy_loss
from entrostat.tokens import TokenStats, token_stats

RULE = ClipRule(LinearThreshold(-0.25, 0.5), LinearThreshold(-0.13, 0.3))


class Step:
    """An update step on random states whose policy has moved away from the one that sampled."""

    def __init__(self, shape: tuple[int, int] = (12, 30), seed: int = 0, objective: str = "clip") -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(*shape, 20, generator=generator, dtype=torch.float64)
        p = logits.softmax(-1).flatten(0, 1)
        ids = torch.multinomial(p, 1, generator=generator).reshape(shape)
        self.stats = token_stats(logits, ids)
        noise = 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.old_logp = self.stats.logp + noise
        self.advantages = torch.randn(shape, generator=generator, dtype=torch.float64).round(decimals=1)
        self.mask = torch.rand(shape, generator=generator) < 0.7
        self.loss = policy_loss(
            self.stats.logp,
            self.old_logp,
            self.advantages,
            self.mask,
            rule=RULE,
            objective=objective,  # type: ignore[arg-type]
        )

    def sums(self, rows: slice = slice(None)) -> TokenSums:
        stats = TokenStats(*(getattr(self.stats, f)[rows] for f in ("logp", "entropy", "collision", "correction")))
        tensors = {name: getattr(self.loss, name) for name in self.loss.__dataclass_fields__}
        loss = replace(self.loss, **{name: x[rows] for name, x in tensors.items() if x is not None})
        return token_sums(stats, self.advantages[rows], loss, self.mask[rows])


def test_the_record_agrees_with_the_definitions() -> None:
    step = Step()
    record, mask = step.sums().metrics(), step.mask
    clipped = step.loss.clipped_low | step.loss.clipped_high
    flow = entropy_flow(step.stats, step.advantages, step.loss)[mask]
    ratio = step.loss.ratio[mask]
    count = mask.sum().item()
    punished = (step.stats.logp - step.old_logp)[mask & (step.advantages < 0)]
    expected = {
        "entropy": step.stats.entropy[mask].mean().item(),
        "flow_up": flow[flow > 0].sum().item() / count,
        "flow_down": flow[flow < 0].sum().item() / count,
        "clip_fraction_low": step.loss.clipped_low.sum().item() / count,
        "clip_fraction_high": step.loss.clipped_high.sum().item() / count,
        "ratio_outside": ((ratio < 0.8) | (ratio > 1.2)).double().mean().item(),
        "log_ratio_min_punished": punished.min().item(),
        "share_up": (flow > 0).sum().item() / count,
        "share_down": (flow < 0).sum().item() / count,
        "flow_rms": flow.square().mean().sqrt().item(),
        "flow_lowest": flow.min().item(),
        "flow_highest": flow.max().item(),
        "kl_old": (ratio - 1 - ratio.log()).mean().item(),
    }
    for key, value in expected.items():
        assert record[key] == pytest.approx(value, rel=1e-12), key
    assert record["clip_fraction_low"] > 0
    assert record["clip_fraction_high"] > 0
    assert record["share_up"] + record["share_down"] < 1, "clipped tokens belong to neither branch"
    labels = regions(step.stats, step.advantages)
    for region, part in zip(("NONE", "E1", "E2", "E3", "E4"), range(5), strict=True):
        member = mask & (labels == part)
        assert record["regions"][region]["share"] == pytest.approx(member.sum().item() / count)
        assert record["regions"][region]["clip_fraction"] == pytest.approx(clipped[member].double().mean().item())
        share = (flow * member[mask]).abs().sum() / flow.abs().sum()
        assert record["regions"][region]["flow_share"] == pytest.approx(share.item())


def test_regions_add_up_to_the_whole() -> None:
    record = Step().sums().metrics()
    parts = record["regions"].values()
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert sum(part["flow_share"] for part in parts) == pytest.approx(1)
    assert sum(part["flow"] for part in parts) == pytest.approx(record["flow_up"] + record["flow_down"])
    clipped = sum(part["clip_fraction"] * part["share"] for part in parts)
    assert clipped == pytest.approx(record["clip_fraction_low"] + record["clip_fraction_high"])
    assert record["flow_down"] < 0 < record["flow_up"]


@pytest.mark.parametrize("cuts", [[3], [1, 2, 7], [11]])
def test_the_record_does_not_depend_on_the_cut_into_micro_batches(cuts: list[int]) -> None:
    step = Step()
    edges = [0, *cuts, 12]
    total = TokenSums.zero()
    for start, stop in pairwise(edges):
        total = total + step.sums(slice(start, stop))
    whole = step.sums()
    torch.testing.assert_close(total.totals, whole.totals)
    torch.testing.assert_close(total.lowest, whole.lowest)
    assert (total.tokens, total.entropy) == (whole.tokens, pytest.approx(whole.entropy))


def test_a_micro_batch_with_an_empty_mask_adds_nothing() -> None:
    step = Step()
    nothing = token_sums(step.stats, step.advantages, step.loss, torch.zeros_like(step.mask))
    assert (nothing + step.sums()).metrics() == step.sums().metrics()


def test_flow_is_what_the_gradient_does_under_any_objective() -> None:
    step = Step(objective="reinforce")
    record = step.sums().metrics()
    flow = entropy_flow(step.stats, step.advantages, step.loss)[step.mask]
    assert record["flow_up"] + record["flow_down"] == pytest.approx(flow.mean().item())
    assert record["clip_fraction_low"] == record["clip_fraction_high"] == 0


def test_without_punished_tokens_there_is_no_lowest_log_ratio() -> None:
    step = Step()
    step.advantages = step.advantages.abs()
    assert step.sums().metrics()["log_ratio_min_punished"] is None


def test_an_underflowing_ratio_of_a_punished_token_stays_a_finite_number() -> None:
    logp, old_logp = torch.tensor([-150.0]), torch.tensor([-1.0])
    adv, mask = torch.tensor([-1.0]), torch.ones(1)
    stats = TokenStats(logp, torch.ones(1), torch.ones(1), torch.ones(1))
    loss = policy_loss(logp, old_logp, adv, mask)
    lowest = token_sums(stats, adv, loss, mask).metrics()["log_ratio_min_punished"]
    assert -math.inf < lowest < -80


def test_the_record_is_plain_json() -> None:
    json.dumps(Step().sums().metrics(), allow_nan=False)


def test_a_step_without_tokens_has_no_record() -> None:
    with pytest.raises(ValueError, match="no token was counted"):
        TokenSums.zero().metrics()


def test_the_flow_times_a_factor_is_that_of_every_token() -> None:
    """For a loss whose scale is known at the end: the same as if each token's flow had been multiplied."""
    step = Step()
    flow = entropy_flow(step.stats, step.advantages, step.loss)
    after = step.sums().with_flow_times(3.0)
    before = token_sums(step.stats, step.advantages, step.loss, step.mask, flow=3.0 * flow)
    torch.testing.assert_close(after.totals, before.totals)
    torch.testing.assert_close(after.lowest, before.lowest)
    assert step.sums().metrics()["flow_rms"] == pytest.approx(after.metrics()["flow_rms"] / 3)


def test_the_border_of_the_ratio_band_is_inside() -> None:
    ratio = torch.tensor([0.79, 0.8, 1.0, 1.2, 1.21], dtype=torch.float64)
    logp, old, adv, mask = ratio.log() - 2, torch.full((5,), -2.0, dtype=torch.float64), torch.ones(5), torch.ones(5)
    stats = TokenStats(logp, *torch.ones(3, 5, dtype=torch.float64).unbind(0))
    loss = policy_loss(logp, old, adv, mask, objective="reinforce")
    loss = type(loss)(loss.per_token, ratio, *(getattr(loss, f) for f in list(loss.__dataclass_fields__)[2:]))
    assert token_sums(stats, adv, loss, mask).metrics()["ratio_outside"] == pytest.approx(0.4)
