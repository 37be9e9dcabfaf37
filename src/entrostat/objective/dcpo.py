"""DCPO: a band by the old probability, from a bound on the variance of the ratio."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from entrostat.objective.clipping import ClipBand, clip_rule


@clip_rule("dcpo")
@dataclass(frozen=True)
class DcpoClip(ClipBand):
    """DCPO: .5 + .5 sqrt(max(1 - 4 lower/q, 0)) <= r <= min(.5 + .5 sqrt(1 + 4 upper/q), cap).

    Source: arXiv 2509.02333; lime-RL/DCPO, verl/trainer/ppo/core_algos.py, get_clip_low_high. Departs: the authors also
    have a dual clip of 10 (`control.dual_clip`) and an advantage that mixes in the statistics of a prompt's earlier
    visits, which is not carried. Raises ValueError for a negative threshold and a cap below 1.
    """

    lower: float = 0.16
    upper: float = 0.2
    cap: float = 10.0

    def __post_init__(self) -> None:
        if not (self.lower >= 0 and self.upper >= 0 and self.cap >= 1):
            raise ValueError(f"DcpoClip: {self}; lower and upper must be at least 0 and cap at least 1")

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        inverse = 4 * (-old_logp).exp()
        low = 0.5 + 0.5 * (1 - self.lower * inverse).clamp_min(0).sqrt()
        high = 0.5 + 0.5 * (1 + self.upper * inverse).sqrt()
        return low, high.clamp_max(self.cap)
