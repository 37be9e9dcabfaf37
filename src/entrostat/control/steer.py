"""STEER: less weight on tokens with a large predicted change of entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting


@weighting("steer")
@dataclass
class Steer(Part):
    """STEER: tokens with a large predicted change of entropy Omega = A (1 - p) (ln p + H) weigh less.

    p is the probability of the sampled token, H the entropy of its state. The weight is
    exponential   exp(-rate abs(Omega)), at least `low`
    linear        from `high` at Omega = 0 down to `low` at the largest abs(Omega) of the given tokens
    Source: arXiv 2510.10150, Omega = (A/q) p (1 - p) (ln p + H), here at r = p/q = 1; [.8, 1.2] is the published linear
    range, the rate is our choice. Raises ValueError unless 0 <= low <= 1 <= high and rate > 0.
    """

    form: Literal["exponential", "linear"] = "linear"
    low: float = 0.8
    high: float = 1.2
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in ("exponential", "linear"):
            raise ValueError(f"Steer.form is {self.form!r}; give 'exponential' or 'linear'")
        if not (0 <= self.low <= 1 <= self.high and self.rate > 0):
            raise ValueError(f"Steer: {self}; it needs 0 <= low <= 1 <= high and a positive rate")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        omega = (advantages * -torch.expm1(stats.logp) * (stats.logp + stats.entropy)).abs()
        if self.form == "exponential":
            return (-self.rate * omega).exp().clamp_min(self.low)
        largest = omega[mask].amax().clamp_min(torch.finfo(omega.dtype).tiny)
        return self.high - (self.high - self.low) * (omega / largest).clamp_max(1)
