"""Entropy dynamics: no gradient on the punished tokens that would lower the entropy most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.control.reweighting import kept_alone
from entrostat.entropy import sampled_part


@weighting("entropy-outliers")
@dataclass
class EntropyOutliers(Part):
    """Entropy-dynamics clipping: no gradient on punished tokens (A < 0) whose S = p_a (ln p_a + H) is far below.

    centred False, Clip-B:  S - mean S < -limit std S over the batch        (limit 2 to 3)
    centred True, Clip-V:   S - C < -limit std (S - C) over the batch       (limit 7.5 to 8.5)
    Punishing such a rare token lowers the entropy; a punished token far above raises it and is kept. most: at most this
    share of the tokens is removed, those furthest below; None for no limit, the authors' Clip-V has 1e-4. The loss is
    the mean over the tokens that are kept. Source: arXiv 2602.03392; Trinity-RFT (hiyuchang/Trinity-RFT, branch
    example/entropy), trinity/algorithm/advantage_fn/clipb_advantage.py and clipv_advantage.py. Departs: the paper's
    text masks both sides; its code and this method one. Raises ValueError for a limit that is not positive and a share
    outside (0, 1].
    """

    limit: float = 2.5
    centred: bool = False
    most: float | None = None

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"EntropyOutliers.limit is {self.limit}; give a positive number of standard deviations")
        if self.most is not None and not 0 < self.most <= 1:
            raise ValueError(f"EntropyOutliers.most is {self.most}; give a share in (0, 1], or null for no limit")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, mask = batch.stats, batch.mask
        s = sampled_part(stats)
        gap = s - (stats.correction if self.centred else s[mask].mean())
        removed = (gap < -self.limit * gap[mask].std(unbiased=False)) & (batch.advantages < 0) & mask
        if self.most is not None:
            removed = _lowest(gap, removed, max(int(self.most * int(mask.sum())), 1))
        return kept_alone(mask & ~removed, batch)


def _lowest(gap: Tensor, among: Tensor, count: int) -> Tensor:
    """The `count` tokens of `among` with the lowest gap."""
    if int(among.sum()) <= count:
        return among
    lowest = gap.masked_fill(~among, float("inf")).flatten().topk(count, largest=False).indices
    return torch.zeros_like(among).flatten().index_fill(0, lowest, True).view_as(among)
