"""STARE: more weight on the most surprising rewarded tokens while the entropy is low."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("stare")
@dataclass
class Stare(Part):
    """STARE: while the last entropy is below `target`, the `share` of the rewarded tokens (A > 0) with the largest
    surprisal weigh `weight`; all others weigh 1.

    adaptive: the weight starts at 1 and changes by `step` per step, up below the target, down otherwise, within
    [1, most]. Source: arXiv 2606.19236; taking the share of the rewarded tokens, not of all, is our reading.
    Raises ValueError for a share outside (0, 1] and a weight or most below 1.
    """

    needs_entropy = True

    share: float = 0.1
    weight: float = 1.1
    target: float = 0.3
    adaptive: bool = False
    step: float = 0.01
    most: float = 1.5
    _weight: float = field(default=1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.weight >= 1 and self.most >= 1):
            raise ValueError(f"Stare: {self}; share must be in (0, 1], weight and most at least 1")

    @override
    def observe(self, step: Measured) -> None:
        low = step.entropy < self.target
        if self.adaptive:
            self._weight = min(max(self._weight + (self.step if low else -self.step), 1.0), self.most)
        else:
            self._weight = self.weight if low else 1.0

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        rewarded = (advantages > 0).expand_as(stats.logp) & mask
        ones = torch.ones_like(stats.logp)
        count = int(self.share * int(rewarded.sum()))
        surprising = (-stats.logp).masked_fill(~rewarded, float("-inf")).flatten().topk(count).indices
        return ones.flatten().index_fill(0, surprising, self._weight).view_as(ones)

    @override
    def state_dict(self) -> State:
        return {"weight": self._weight}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._weight = state["weight"]
