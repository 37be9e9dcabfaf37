"""ABC-GRPO: a closed band for each sign of the advantage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.objective.clipping import ClipBand, clip_rule


@clip_rule("abc")
@dataclass(frozen=True)
class AbcClip(ClipBand):
    """ABC-GRPO: a closed band for each sign, without the pessimistic minimum.

    A > 0: clip(r, 1 - e2, 1 + e1);  A <= 0: clip(r, 1 - e4, 1 + e3); `bounds` is the wider of the two.
    Source: arXiv 2601.03895, all four .2. Departs: none; their branch of TRL (chi2liu/trl, abc-grpo) was not
    to be had.
    Raises ValueError for a negative threshold, or e2, e4 above 1.
    """

    e1: float = 0.2
    e2: float = 0.2
    e3: float = 0.2
    e4: float = 0.2

    def __post_init__(self) -> None:
        if not (min(self.e1, self.e3) >= 0 and 0 <= self.e2 <= 1 and 0 <= self.e4 <= 1):
            raise ValueError(f"AbcClip: {self}; e1 and e3 must be at least 0, e2 and e4 in [0, 1]")

    @property
    @override
    def per_token(self) -> bool:
        return False

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(old_logp)
        return (1 - max(self.e2, self.e4)) * one, (1 + max(self.e1, self.e3)) * one

    @override
    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(old_logp)
        rewarded = advantages > 0
        low = torch.where(rewarded, 1 - self.e2, (1 - self.e4) * one)
        return low, torch.where(rewarded, 1 + self.e1, (1 + self.e3) * one)
