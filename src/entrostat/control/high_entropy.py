"""80/20: a gradient only on the tokens of highest entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.control.reweighting import kept_alone


@weighting("80/20")
@dataclass
class HighEntropyTokens(Part):
    """80/20: gradient only on the ceil(share N) of the N tokens with the highest entropy H, including ties.

    divide_by_kept: the loss is the mean over the tokens that are kept, as the authors' is: each weighs N / kept, about
    5, instead of 1. Source: arXiv 2506.01939; zhouxiangxin1998/Beyond-the-80-20-Rule-RLVR,
    verl/trainer/ppo/core_algos.py, get_global_entropy_top_mask. TRL's top_entropy_quantile divides by all tokens.
    Departs: the authors choose within a micro-batch and break ties by position; here a choice holds for the batch, and
    ties are kept.
    Raises ValueError for a share outside (0, 1].
    """

    share: float = 0.2
    divide_by_kept: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"HighEntropyTokens.share is {self.share}; give a share in (0, 1]")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        entropy = batch.stats.entropy[batch.mask]
        count = math.ceil(self.share * len(entropy) - 1e-9)
        least = entropy.kthvalue(len(entropy) - count + 1).values
        keep = (batch.stats.entropy >= least) & batch.mask
        return kept_alone(keep, batch) if self.divide_by_kept else keep.to(batch.stats.logp.dtype)
