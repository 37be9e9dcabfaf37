"""GEPO: group entropy decides whether rewarded or punished tokens weigh less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting


@weighting("gepo")
@dataclass
class Gepo(Part):
    """GEPO: rewarded tokens weigh `factor` in groups of low entropy, punished ones in groups of high entropy.

    A group is `group_size` consecutive rows of padded (B, T) tokens, its entropy their mean H; low and high groups are
    those at or below the `low`-quantile and at or above the `high`-quantile of the given groups. Source: arXiv
    2607.16850; the factor and the quantiles are our choice. Raises ValueError for settings out of range, packed
    tokens, and rows that do not form whole groups.
    """

    group_size: int
    factor: float = 0.5
    low: float = 0.25
    high: float = 0.75

    def __post_init__(self) -> None:
        if not (self.group_size >= 1 and 0 <= self.factor <= 1 and 0 <= self.low < self.high <= 1):
            raise ValueError(f"Gepo: {self}; it needs group_size >= 1, factor in [0, 1] and 0 <= low < high <= 1")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        if mask.dim() != 2 or len(mask) % self.group_size:
            raise ValueError(
                f"Gepo: tokens of shape {tuple(mask.shape)} do not form whole groups of {self.group_size} rows; "
                "give padded (B, T) tokens with the rows of a group in sequence"
            )
        groups = len(mask) // self.group_size
        tokens = mask.reshape(groups, -1)
        entropy = stats.entropy.where(mask, 0).reshape(groups, -1).sum(1) / tokens.sum(1).clamp_min(1)
        edges = entropy.quantile(torch.tensor([self.low, self.high], dtype=entropy.dtype, device=entropy.device))
        by_row = entropy.repeat_interleave(self.group_size)[:, None]
        shrunk = ((by_row <= edges[0]) & (advantages > 0)) | ((by_row >= edges[1]) & (advantages < 0))
        return torch.where(shrunk, self.factor, torch.ones_like(stats.logp))
