"""RIPO: a band of equal distance on the manifold of policies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from entrostat.objective.clipping import ClipBand, clip_rule


@clip_rule("ripo")
@dataclass(frozen=True)
class RipoClip(ClipBand):
    """RIPO: max(1 - e, low) <= r <= min(1 + e, high) with e = sqrt(delta / q), wide for rare tokens.

    Every token may move by the same Fisher-Rao distance, q (r - 1)^2 <= delta; DPPO bounds q abs(r - 1). Aggregate by
    "token-mean". Source: arXiv 2607.10169, section 4.1: delta .05, r in [.5, 10]. Departs: none.
    Raises ValueError for delta <= 0 and limits that do not hold 1.
    """

    delta: float = 0.05
    low: float = 0.5
    high: float = 10.0

    def __post_init__(self) -> None:
        if not (self.delta > 0 and 0 <= self.low <= 1 <= self.high):
            raise ValueError(f"RipoClip: {self}; it needs delta > 0 and 0 <= low <= 1 <= high")

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        width = (self.delta * (-old_logp).exp()).sqrt()
        return (1 - width).clamp_min(self.low), (1 + width).clamp_max(self.high)
