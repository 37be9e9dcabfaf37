"""Clip-Cov: no gradient on a few tokens that move the entropy most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.objective.regularisers import covariance_terms


@weighting("clip-cov")
@dataclass
class ClipCov(Part):
    """Clip-Cov: no gradient on a random `share` of the tokens, drawn from those with low < c < high, where
        c = (A - mean A) (ln p_a - mean ln p_a),
    that the band does not clip already. At least one token is drawn if there are candidates, from torch's global
    generator. The thresholds are on the scale of A: they suit advantages of unit variance and have no effect on much
    smaller ones. Source: arXiv 2505.22617; PRIME-RL/Entropy-Mechanism-of-RL, verl/trainer/ppo/core_algos.py,
    compute_policy_loss_clip_cov. The authors run it with the band 0 to 2 (`constant`, both 1). Departs: none.
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
        stats, mask = batch.stats, batch.mask
        product = covariance_terms(stats.logp, batch.advantages, mask)
        free = mask & ~(batch.clipped_low | batch.clipped_high)
        candidates = ((product > self.low) & (product < self.high) & free).flatten().nonzero()[:, 0]
        count = max(int(self.share * int(mask.sum())), 1)
        drawn = candidates[torch.randperm(len(candidates), device=candidates.device)[:count]]
        return torch.ones_like(stats.logp).flatten().index_fill(0, drawn, 0).view_as(stats.logp)
