"""Masks: weights of 0 and 1, for methods that remove the gradient of some tokens.

Their statistics are those of the given tokens: a whole batch, or one micro-batch at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.entropy import Convention, Region, regions, sampled_part
from entrostat.objective.regularisers import covariance_terms


@weighting("80/20")
@dataclass
class HighEntropyTokens(Part):
    """80/20: gradient only on the `share` of the tokens with the highest entropy H, including ties.

    Source: arXiv 2506.01939. Raises ValueError for a share outside (0, 1].
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"HighEntropyTokens.share is {self.share}; give a share in (0, 1]")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, mask = batch.stats, batch.mask
        entropy = stats.entropy[mask]
        rank = math.ceil((len(entropy) - 1) * (1 - self.share))
        threshold = entropy.kthvalue(rank + 1).values
        return ((stats.entropy >= threshold) & mask).to(stats.logp.dtype)


@weighting("clip-cov")
@dataclass
class ClipCov(Part):
    """Clip-Cov: no gradient on a random `share` of the tokens, drawn from those with low < c < high, where
        c = (A - mean A) (ln p_a - mean ln p_a).
    At least one token is drawn if there are candidates, from torch's global generator. Source: arXiv 2505.22617.
    The thresholds are on the scale of A: they suit advantages of unit variance and have no effect on much smaller ones.
    Raises ValueError for a share outside (0, 1] and low >= high.
    """

    share: float = 2e-4
    low: float = 1.0
    high: float = 5.0

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.low < self.high):
            raise ValueError(f"ClipCov: {self}; share must be in (0, 1] and low below high")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        product = covariance_terms(stats.logp, advantages, mask)
        candidates = ((product > self.low) & (product < self.high) & mask).flatten().nonzero()[:, 0]
        count = max(int(self.share * int(mask.sum())), 1)
        drawn = candidates[torch.randperm(len(candidates), device=candidates.device)[:count]]
        return torch.ones_like(stats.logp).flatten().index_fill(0, drawn, 0).view_as(stats.logp)


@weighting("entropy-outliers")
@dataclass
class EntropyOutliers(Part):
    """Entropy-dynamics clipping: no gradient on punished tokens (A < 0) whose S = p_a (ln p_a + H) is an outlier.

    centred False:  abs(S - mean S) > limit std S over the batch       (limit 2.0 to 3.0)
    centred True:   abs(S - C) > limit std (S - C) over the batch      (limit 7.5 to 8.5)
    Source: arXiv 2602.03392; masking both tails is our reading. Raises ValueError for a limit that is not
    positive.
    """

    limit: float = 2.5
    centred: bool = False

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"EntropyOutliers.limit is {self.limit}; give a positive number of standard deviations")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        s = sampled_part(stats)
        gap = s - (stats.correction if self.centred else s[mask].mean())
        outlier = gap.abs() > self.limit * gap[mask].std(unbiased=False)
        return (~(outlier & (advantages < 0))).to(stats.logp.dtype)


@weighting("skip-region")
@dataclass
class SkipRegion(Part):
    """No gradient on the tokens of one region E1-E4, by a convention of `entropy.regions`; all others are unchanged.

    Prediction: skipping E1 or E4 raises the entropy against the same run without a mask; skipping E2 or E3 lowers it.
    Source: the region experiment of arXiv 2602.09782, which clips one region's tokens at a time. Ours, n = 5: E1 +.078
    [.060, .097], E2 -.012 [-.020, -.004], E3 -.033 [-.040, -.026], E4 +.007 [.002, .012] nats (studies/regions).
    Raises ValueError for any other region or convention.
    """

    region: Literal["E1", "E2", "E3", "E4"]
    convention: Convention = "surprisal"

    def __post_init__(self) -> None:
        if self.region not in ("E1", "E2", "E3", "E4"):
            raise ValueError(f"SkipRegion.region is {self.region!r}; give 'E1', 'E2', 'E3' or 'E4'")
        if self.convention not in get_args(Convention):
            raise ValueError(
                f"SkipRegion.convention is {self.convention!r}; give {', '.join(map(repr, get_args(Convention)))}"
            )

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        skipped = regions(stats, advantages, self.convention) == Region[self.region]
        return (~skipped).to(stats.logp.dtype)
