"""ERC: tokens whose entropy has changed too much have no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting

SMALL = 1e-8  # nats, added to both entropies, as in the authors' code


@weighting("erc")
@dataclass
class EntropyRatioClip(Part):
    """ERC: no gradient on tokens whose entropy ratio H(pi) / H(pi_old) is not in (low, high), beside the clip.

    The ratio sees what an update did to the tokens that were not sampled. On-policy it is 1 and nothing is removed.
    Source: arXiv 2512.05591; Kwai-Klear/ERC, verl/trainer/ppo/core_algos.py, compute_policy_loss_grpo_erc, with .95 and
    1.05. Departs: none in the gradient; the authors' loss keeps the value of what it removes. Raises ValueError for
    bounds that do not hold 1, and in `weights` where the trainer does not give the entropy of pi_old.
    """

    needs_old_entropy: ClassVar[bool] = True

    low: float = 0.95
    high: float = 1.05

    def __post_init__(self) -> None:
        if not 0 <= self.low < 1 < self.high:
            raise ValueError(f"EntropyRatioClip: {self}; it needs 0 <= low < 1 < high")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        if batch.old_entropy is None:
            raise ValueError(
                "EntropyRatioClip needs the entropy of pi_old, which this trainer does not give (old_entropy); take "
                "another reweighting, or the embedded engine"
            )
        ratio = (batch.stats.entropy + SMALL) / (batch.old_entropy + SMALL)
        return ((ratio > self.low) & (ratio < self.high)).to(batch.stats.logp.dtype)
