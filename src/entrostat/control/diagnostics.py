"""What an optimizer step did to the entropy: sums that add over micro-batches and ranks, and the step's record.

sums = TokenSums.zero()
sums = sums + token_sums(stats, advantages, loss, mask)       per micro-batch; ranks all-reduce the two tensors
record.update(sums.metrics())                                 plain floats
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from entrostat.entropy import Convention, Region, entropy_flow, regions
from entrostat.objective import PolicyLoss
from entrostat.tokens import TokenStats

RATIO_BAND = (0.8, 1.2)

Metrics = dict[str, float | dict[str, dict[str, float]] | None]


class _Column(IntEnum):
    TOKENS = 0
    ENTROPY = 1
    FLOW_UP = 2
    FLOW_DOWN = 3
    CLIPPED_LOW = 4
    CLIPPED_HIGH = 5
    RATIO_OUTSIDE = 6
    EXPANDING = 7
    CONTRACTING = 8
    FLOW_SQUARED = 9
    KL = 10


class _Extreme(IntEnum):
    LOG_RATIO_PUNISHED = 0
    FLOW = 1
    MINUS_FLOW = 2


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Sums and extremes over tokens, float64: `totals` (region, quantity), reduced by SUM; `lowest` (3,), by MIN."""

    totals: Tensor
    lowest: Tensor

    @classmethod
    def zero(cls) -> TokenSums:
        """The sums of no token."""
        empty = torch.zeros(len(Region), len(_Column), dtype=torch.float64)
        return cls(empty, torch.full((len(_Extreme),), math.inf, dtype=torch.float64))

    def __add__(self, other: TokenSums) -> TokenSums:
        device = other.totals.device
        return TokenSums(self.totals.to(device) + other.totals, torch.minimum(self.lowest.to(device), other.lowest))

    def with_flow_times(self, factor: float) -> TokenSums:
        """The sums with every token's flow multiplied by a factor > 0, for a loss whose scale is known at the end."""
        totals, lowest = self.totals.clone(), self.lowest.clone()
        totals[:, [_Column.FLOW_UP, _Column.FLOW_DOWN]] *= factor
        totals[:, _Column.FLOW_SQUARED] *= factor**2
        lowest[[_Extreme.FLOW, _Extreme.MINUS_FLOW]] *= factor
        return TokenSums(totals, lowest)

    @property
    def tokens(self) -> float:
        """The number of tokens."""
        return self._sum(_Column.TOKENS)

    @property
    def entropy(self) -> float:
        """The sum of H in nats."""
        return self._sum(_Column.ENTROPY)

    def metrics(self) -> Metrics:
        """The record of a step; every mean and share is over all its tokens.

        entropy                     mean H in nats
        flow_up, flow_down          mean of the expanding (>= 0) and of the contracting (<= 0) entropy flow: slope A T
                                    and the flow of the loss's other terms, times the aggregation's weight of the token;
                                    nats per unit of step on the token's own logits
        share_up, share_down        share of tokens that expand and that contract; the rest is clipped or has no flow.
                                    A branch's share of the flow is flow_up / (flow_up - flow_down)
        flow_rms                    root mean square of the flow of a token
        flow_lowest, flow_highest   the most contracting and the most expanding token's flow
        regions                     for NONE, E1 ... E4: share of the tokens, clip_fraction within the region, flow,
                                    its part of flow_up + flow_down, and flow_share, its part of flow_up - flow_down
        clip_fraction_low, ..._high share of tokens clipped at the lower, upper side of the band
        ratio_outside               share of tokens with pi/pi_old outside .8 to 1.2
        log_ratio_min_punished      lowest ln(pi/pi_old) of a token with A < 0; None if there is none
        kl_old                      estimate of KL(pi_old, pi), nats per token: mean of r - 1 - ln r (Schulman's k3)
        Raises ValueError if no token was counted.
        """
        if self.tokens == 0:
            raise ValueError("step record: no token was counted; write no record for a step whose masks are empty")
        lowest: list[float] = self.lowest.tolist()
        punished = lowest[_Extreme.LOG_RATIO_PUNISHED]
        return {
            "entropy": self._mean(_Column.ENTROPY),
            "flow_up": self._mean(_Column.FLOW_UP),
            "flow_down": self._mean(_Column.FLOW_DOWN),
            "share_up": self._mean(_Column.EXPANDING),
            "share_down": self._mean(_Column.CONTRACTING),
            "flow_rms": math.sqrt(self._mean(_Column.FLOW_SQUARED)),
            "flow_lowest": lowest[_Extreme.FLOW],
            "flow_highest": -lowest[_Extreme.MINUS_FLOW],
            "regions": {region.name: self._region(region) for region in Region},
            "clip_fraction_low": self._mean(_Column.CLIPPED_LOW),
            "clip_fraction_high": self._mean(_Column.CLIPPED_HIGH),
            "ratio_outside": self._mean(_Column.RATIO_OUTSIDE),
            "log_ratio_min_punished": None if punished == math.inf else punished,
            "kl_old": self._mean(_Column.KL),
        }

    def _sum(self, column: _Column) -> float:
        return self.totals[:, column].sum().item()

    def _mean(self, column: _Column) -> float:
        return self._sum(column) / self.tokens

    def _region(self, region: Region) -> dict[str, float]:
        row: list[float] = self.totals[region].tolist()
        clipped = row[_Column.CLIPPED_LOW] + row[_Column.CLIPPED_HIGH]
        moved = self._sum(_Column.FLOW_UP) - self._sum(_Column.FLOW_DOWN)
        return {
            "share": row[_Column.TOKENS] / self.tokens,
            "clip_fraction": clipped / max(row[_Column.TOKENS], 1.0),
            "flow": (row[_Column.FLOW_UP] + row[_Column.FLOW_DOWN]) / self.tokens,
            "flow_share": (row[_Column.FLOW_UP] - row[_Column.FLOW_DOWN]) / moved if moved else 0.0,
        }


@torch.no_grad()
def token_sums(
    stats: TokenStats,
    advantages: Tensor,
    loss: PolicyLoss,
    mask: Tensor,
    convention: Convention = "surprisal",
    *,
    flow: Tensor | None = None,
) -> TokenSums:
    """The sums of one micro-batch; all tensors (...), the advantage may broadcast, a mask of zeros gives zeros.

    advantages: those of the loss, including weights, because the flow describes the update. The flow uses the loss's
    slope as the ratio, which is 0 where the token is clipped. flow (...): the flow of the trained loss times the number
    of tokens, if the loss is more than the objective under token-mean; see `entropy_flow`.
    """
    mask = mask.bool()
    advantages = advantages.expand_as(mask)
    flow = entropy_flow(stats, advantages, loss) if flow is None else flow
    ratio = loss.ratio.clamp_min(torch.finfo(loss.ratio.dtype).tiny).double()
    low, high = RATIO_BAND
    columns = [
        torch.ones_like(flow),
        stats.entropy,
        flow.clamp_min(0),
        flow.clamp_max(0),
        loss.clipped_low,
        loss.clipped_high,
        (loss.ratio < low) | (loss.ratio > high),
        flow > 0,
        flow < 0,
        flow.double().square(),
        ratio - 1 - ratio.log(),
    ]
    values = torch.stack([column[mask].double() for column in columns], dim=-1)
    zero = TokenSums.zero()
    totals = zero.totals.to(values.device).index_add(0, regions(stats, advantages, convention)[mask].long(), values)
    extremes = (ratio.log()[mask & (advantages < 0)], flow[mask].double(), -flow[mask].double())
    empty = zero.lowest[:1].to(values.device)
    return TokenSums(totals, torch.stack([torch.cat([values, empty]).amin() for values in extremes]))
