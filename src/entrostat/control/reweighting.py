"""Reweighting: factors for the advantages that favour expanding or contracting tokens, after their polarity P = A T.

A weighting is a small class with `weights`; one that listens to the entropy adds `observe`. No weight is negative, so
no advantage turns its sign.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.state import Listener
from entrostat.entropy import polarity
from entrostat.tokens import TokenStats


class Reweighting(Listener, ABC):
    """What a controller asks for the weights of a step's tokens."""

    @abstractmethod
    def weights(self, stats: TokenStats, advantages: Tensor, mask: Tensor) -> Tensor:
        """A factor >= 0 for each token (...), detached; the tokens of `mask` (...) make the statistics of the batch.

        A weighting that has such statistics depends on how a batch is cut: give it the whole one where that matters.
        """


@dataclass(frozen=True)
class FixedWeights(Reweighting):
    """One factor for expanding tokens (P > 0), one for contracting ones (P < 0), at every step.

    0 drops a branch: the ablation of arXiv 2605.11775. Raises ValueError for a negative factor.
    """

    expanding: float = 1.0
    contracting: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("expanding", self.expanding), ("contracting", self.contracting)):
            if not value >= 0:
                raise ValueError(f"FixedWeights.{name} is {value}; give a factor of at least 0")

    @override
    def weights(self, stats: TokenStats, advantages: Tensor, mask: Tensor) -> Tensor:
        return by_polarity(polarity(stats, advantages), self.expanding, self.contracting)


def by_polarity(polarity: Tensor, expanding: float | Tensor, contracting: float | Tensor) -> Tensor:
    """`expanding` where the polarity is positive, `contracting` where it is negative, 1 where it is 0."""
    one = torch.ones_like(polarity)
    return torch.where(polarity > 0, expanding * one, torch.where(polarity < 0, contracting * one, one))
