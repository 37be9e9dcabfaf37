"""Reweighting: factors for the advantages that favour expanding or contracting tokens, by their polarity P = A T.

No weight is negative, so no advantage changes its sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.entropy import polarity


@weighting("fixed")
@dataclass
class FixedWeights(Part):
    """One factor for expanding tokens (P > 0) and one for contracting ones (P < 0), at every step.

    0 drops a branch: the ablation of arXiv 2605.11775. Raises ValueError for a negative factor.
    """

    expanding: float = 1.0
    contracting: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("expanding", self.expanding), ("contracting", self.contracting)):
            if not value >= 0:
                raise ValueError(f"FixedWeights.{name} is {value}; give a factor of at least 0")

    @override
    def weights(self, batch: TokenBatch) -> Tensor:
        return by_polarity(polarity(batch.stats, batch.advantages), self.expanding, self.contracting)


def kept_alone(keep: Tensor, batch: TokenBatch) -> Tensor:
    """Weights that leave the loss to the tokens in `keep`, as if there were no others; 0 for the rest.

    The kept tokens weigh (sum of the aggregation's weights) / (that of the kept), N / kept under token-mean.
    """
    shares = batch.token_weights * batch.mask
    scale = shares.sum() / (shares * keep).sum().clamp_min(torch.finfo(shares.dtype).tiny)
    weights: Tensor = keep * scale.to(batch.stats.logp.dtype)
    return weights


def by_polarity(polarity: Tensor, expanding: float | Tensor, contracting: float | Tensor) -> Tensor:
    """`expanding` where the polarity is positive, `contracting` where it is negative, 1 where it is 0."""
    one = torch.ones_like(polarity)
    return torch.where(polarity > 0, expanding * one, torch.where(polarity < 0, contracting * one, one))
