"""What an optimizer step did to the entropy, as sums that add over micro-batches and ranks, and the record they end in.

sums = TokenSums.zero()
sums = sums + token_sums(stats, advantages, loss, mask)       each micro-batch; ranks all-reduce the two tensors
record.update(sums.metrics())                                 plain floats
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from entrostat.entropy import Convention, Region, polarity, regions
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


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Sums over tokens: `totals` (region, quantity) in float64, all-reduced by SUM; `lowest`, a scalar, by MIN."""

    totals: Tensor
    lowest: Tensor

    @classmethod
    def zero(cls) -> TokenSums:
        """The sums of no token."""
        empty = torch.zeros(len(Region), len(_Column), dtype=torch.float64)
        return cls(empty, torch.tensor(math.inf, dtype=torch.float64))

    def __add__(self, other: TokenSums) -> TokenSums:
        device = other.totals.device
        return TokenSums(self.totals.to(device) + other.totals, torch.minimum(self.lowest.to(device), other.lowest))

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
        flow_up, flow_down          mean of the expanding (>= 0) and of the contracting (<= 0) entropy flow, slope A T:
                                    nats a unit of step on the token's own logits
        regions                     for NONE, E1 ... E4: share of the tokens, clip_fraction within the region, and flow,
                                    its part of flow_up + flow_down
        clip_fraction_low, ..._high share of tokens cut at the lower, upper side of the band
        ratio_outside               share of tokens with pi/pi_old outside .8 to 1.2
        log_ratio_min_punished      lowest ln(pi/pi_old) of a token with A < 0; None if there is none
        Raises ValueError when no token was counted.
        """
        if self.tokens == 0:
            raise ValueError("step record: no token was counted; write no record for a step whose masks are empty")
        lowest = self.lowest.item()
        return {
            "entropy": self._mean(_Column.ENTROPY),
            "flow_up": self._mean(_Column.FLOW_UP),
            "flow_down": self._mean(_Column.FLOW_DOWN),
            "regions": {region.name: self._region(region) for region in Region},
            "clip_fraction_low": self._mean(_Column.CLIPPED_LOW),
            "clip_fraction_high": self._mean(_Column.CLIPPED_HIGH),
            "ratio_outside": self._mean(_Column.RATIO_OUTSIDE),
            "log_ratio_min_punished": None if lowest == math.inf else lowest,
        }

    def _sum(self, column: _Column) -> float:
        return self.totals[:, column].sum().item()

    def _mean(self, column: _Column) -> float:
        return self._sum(column) / self.tokens

    def _region(self, region: Region) -> dict[str, float]:
        row: list[float] = self.totals[region].tolist()
        clipped = row[_Column.CLIPPED_LOW] + row[_Column.CLIPPED_HIGH]
        return {
            "share": row[_Column.TOKENS] / self.tokens,
            "clip_fraction": clipped / max(row[_Column.TOKENS], 1.0),
            "flow": (row[_Column.FLOW_UP] + row[_Column.FLOW_DOWN]) / self.tokens,
        }


@torch.no_grad()
def token_sums(
    stats: TokenStats, advantages: Tensor, loss: PolicyLoss, mask: Tensor, convention: Convention = "surprisal"
) -> TokenSums:
    """The sums of one micro-batch; everything (...), the advantage may broadcast, a mask of zeros gives zeros.

    advantages: those of the loss, weights included, for the flow is what the update does. It takes the loss's slope for
    the ratio, which is 0 where the token is clipped away.
    """
    mask = mask.bool()
    advantages = advantages.expand_as(mask)
    flow = loss.slope * polarity(stats, advantages)
    low, high = RATIO_BAND
    columns = [
        torch.ones_like(flow),
        stats.entropy,
        flow.clamp_min(0),
        flow.clamp_max(0),
        loss.clipped_low,
        loss.clipped_high,
        (loss.ratio < low) | (loss.ratio > high),
    ]
    values = torch.stack([column[mask].double() for column in columns], dim=-1)
    zero = TokenSums.zero()
    totals = zero.totals.to(values.device).index_add(0, regions(stats, advantages, convention)[mask].long(), values)
    punished = loss.ratio[mask & (advantages < 0)].clamp_min(torch.finfo(loss.ratio.dtype).tiny).double().log()
    lowest = torch.cat([punished, zero.lowest.to(punished.device)[None]]).amin()
    return TokenSums(totals, lowest)
