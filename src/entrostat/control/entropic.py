"""EntroPIC: proportional-integral control of rewarded against punished tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve, target_curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("entropic")
@dataclass
class EntroPic(Part):
    """EntroPIC: proportional-integral control of the balance between rewarded and punished tokens.

    e = target - H,  a = clip(kp e + ki sum e),  weights 1 - a where A > 0 and 1 + a where A < 0: below the target
    it learns more from failures. target: nats, or a curve over the run. Source: arXiv 2511.15248; kp, ki and the clip
    to [-bound, bound], at which the sum of e stops growing, are our choice. One release of the authors acts on likely
    tokens alone, by an unclipped term of its own; a weight cannot do that, and ours acts on all tokens.
    Raises ValueError for a target <= 0, gains < 0, bound outside (0, 1].
    """

    needs_entropy = True

    target: float | Curve
    kp: float = 1.0
    ki: float = 0.01
    bound: float = 0.9
    _balance: float = field(default=0.0, init=False, repr=False)
    _sum: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._curve = target_curve(self.target, "EntroPic.target")
        if not (self.kp >= 0 and self.ki >= 0 and 0 < self.bound <= 1):
            raise ValueError(f"EntroPic: {self}; gains must be at least 0, bound in (0, 1]")

    @override
    def observe(self, step: Measured) -> None:
        error = self._curve.at(step.progress) - step.entropy
        wanted = self.kp * error + self.ki * (self._sum + error)
        self._balance = min(max(wanted, -self.bound), self.bound)
        if wanted == self._balance or wanted * error < 0:
            self._sum += error

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        return (1 - self._balance * advantages.sign()).expand_as(stats.logp)

    @override
    def state_dict(self) -> State:
        return {"balance": self._balance, "sum": self._sum}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._balance, self._sum = state["balance"], state["sum"]
