"""STEER: less weight on tokens with a large predicted change of entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting


@weighting("steer")
@dataclass
class Steer(Part):
    """STEER: tokens with a large predicted change of entropy Omega = (A/q) p (1 - p) (ln p + H) weigh less.

    p is the probability of the sampled token, q that under pi_old, H the entropy of its state. With m and M the
    smallest and the largest abs(Omega) of the given tokens, the weight is
    exponential   exp(-k abs(Omega)), k = -ln(low) / max(M, least), so 1 at Omega = 0 and `low` at M
    linear        from `high` at m down to `low` at M; their mean where all are equal
    Source: arXiv 2510.10150; zz-haooo/STEER, verl/trainer/ppo/core_algos.py, compute_token_weights: .8 and least .02,
    .8 to 1.2. Departs: none. Raises ValueError unless 0 < low <= 1 <= high and least > 0.
    """

    form: Literal["exponential", "linear"] = "linear"
    low: float = 0.8
    high: float = 1.2
    least: float = 0.02

    def __post_init__(self) -> None:
        if self.form not in ("exponential", "linear"):
            raise ValueError(f"Steer.form is {self.form!r}; give 'exponential' or 'linear'")
        if not (0 < self.low <= 1 <= self.high and self.least > 0):
            raise ValueError(f"Steer: {self}; it needs 0 < low <= 1 <= high and least > 0")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, mask = batch.stats, batch.mask
        omega = (batch.advantages * batch.ratio * -torch.expm1(stats.logp) * (stats.logp + stats.entropy)).abs()
        smallest, largest = omega[mask].aminmax()
        if self.form == "exponential":
            rate = -math.log(self.low) / largest.clamp_min(self.least)
            return (-rate * omega).exp().clamp_min(self.low)
        if smallest == largest:
            return torch.full_like(omega, (self.low + self.high) / 2)
        return self.high - (self.high - self.low) * ((omega - smallest) / (largest - smallest)).clamp(0, 1)
