"""ADAPO: the upper clip threshold follows a target entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from entrostat.control.curves import Curve, target_curve
from entrostat.control.part import Measured, Phase, State, strategy
from entrostat.control.strategies import Strategy
from entrostat.objective import ClipRule


@strategy("adapo")
@dataclass
class Adapo(Strategy):
    """ADAPO: 1 - lower <= r <= 1 + e, where the entropy moves e: up after a step below `target`, else down.

    e starts at `start` and changes by the factor `factor`, within [least, most]. target: nats, or a curve over the run.
    Source: arXiv 2603.11682, which moves the upper threshold by the entropy; we found no published step or range, so
    factor and range are our choice. Inert with one optimizer step per batch. Raises ValueError for a target <= 0, a
    factor of 1 or less, lower outside [0, 1] and unless 0 < least <= start <= most.
    """

    needs_entropy = True

    target: float | Curve
    lower: float = 0.2
    start: float = 0.2
    least: float = 0.05
    most: float = 1.0
    factor: float = 1.1
    _upper: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._curve: Curve = target_curve(self.target, "Adapo.target")
        if not (0 < self.least <= self.start <= self.most and 0 <= self.lower <= 1 and self.factor > 1):
            raise ValueError(
                f"Adapo: start {self.start} in [{self.least}, {self.most}], lower {self.lower}, factor {self.factor}; "
                "give 0 < least <= start <= most, lower in [0, 1] and a factor above 1"
            )
        self._upper = self.start

    @override
    def observe(self, step: Measured) -> None:
        up = step.entropy < self._curve.at(step.progress)
        self._upper = min(max(self._upper * (self.factor if up else 1 / self.factor), self.least), self.most)

    @override
    def clip(self) -> ClipRule:
        return ClipRule.constant(lower=self.lower, upper=self._upper)

    @override
    def bands(self) -> Sequence[ClipRule]:
        return [ClipRule.constant(lower=self.lower, upper=upper) for upper in (self.least, self.most)]

    @property
    @override
    def phase(self) -> Phase:
        """ "increase" above the start, "decrease" below it."""
        return "hold" if self._upper == self.start else "increase" if self._upper > self.start else "decrease"

    @override
    def state_dict(self) -> State:
        return {"upper": self._upper}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._upper = state["upper"]
