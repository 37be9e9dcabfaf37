"""The controller of MAI: the sign of the entropy error widens the upper threshold; a circuit breaker on all ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve, target_curve
from entrostat.control.part import Measured, Phase, State, strategy
from entrostat.control.strategies import Strategy
from entrostat.objective import ClipBand, ClipRule
from entrostat.objective.clipping import ChangedBand


@dataclass(frozen=True, slots=True)
class CircuitBreaker(ChangedBand):
    """Another band, plus no gradient outside [least, most] for either sign of A: r is clip(r, least, most) in both
    branches of min(r A, clip(r) A). Raises ValueError unless 0 <= least < 1 < most.
    """

    band: ClipBand
    least: float
    most: float

    def __post_init__(self) -> None:
        if not 0 <= self.least < 1 < self.most:
            raise ValueError(f"CircuitBreaker: [{self.least}, {self.most}]; give 0 <= least < 1 < most")

    @override
    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.band.limits(old_logp, advantages)
        return torch.as_tensor(low).clamp_min(self.least), torch.as_tensor(high).clamp_max(self.most)


@strategy("mai")
@dataclass
class Mai(Strategy):
    """MAI-Thinking: 1 - eps <= r <= 1 / (1 - eps) + k, with k <- clip(k + step sign(target - H), 0, most).

    k starts at 0, where the band is symmetric in ln r. ratio_least, ratio_most: the outer limits of every ratio, see
    `CircuitBreaker`. target: nats, or a curve over the run. Inert with one optimizer step per batch.
    Source: the report on MAI-Thinking-1 (Microsoft, 2026), equations 7 to 9, and section 3.1.5 for eps .6, step .25,
    most 2.5, target .3 and the outer limits 0 and 50, all as public reading notes quote them. Departs: H is the exact
    mean entropy, where the report estimates it by the mean of -r ln pi; we have seen neither the report nor its code.
    Raises ValueError for a target <= 0, eps outside (0, 1), step or most <= 0 and unless
    0 <= ratio_least < 1 < ratio_most.
    """

    needs_entropy = True

    target: float | Curve = 0.3
    eps: float = 0.6
    step: float = 0.25
    most: float = 2.5
    ratio_least: float = 0.0
    ratio_most: float = 50.0
    _k: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._curve: Curve = target_curve(self.target, "Mai.target")
        if not (0 < self.eps < 1 and self.step > 0 and self.most > 0):
            raise ValueError(f"Mai: {self}; give eps in (0, 1), and a step and most above 0")
        self._band(0.0)

    @override
    def observe(self, step: Measured) -> None:
        gap = self._curve.at(step.progress) - step.entropy
        self._k = min(max(self._k + self.step * ((gap > 0) - (gap < 0)), 0.0), self.most)

    @override
    def clip(self) -> ClipBand:
        return self._band(self._k)

    @override
    def bands(self) -> Sequence[ClipBand]:
        return [self._band(0.0), self._band(self.most)]

    def _band(self, k: float) -> ClipBand:
        upper = 1 / (1 - self.eps) + k - 1
        return CircuitBreaker(ClipRule.constant(lower=self.eps, upper=upper), self.ratio_least, self.ratio_most)

    @property
    @override
    def phase(self) -> Phase:
        """ "increase" while the upper threshold is widened."""
        return "increase" if self._k > 0 else "hold"

    @override
    def state_dict(self) -> State:
        return {"k": self._k}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._k = state["k"]
