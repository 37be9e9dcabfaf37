"""The coefficient of an entropy bonus, loss - coefficient H: constant, or adapted to a target entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.part import Measured, Part, State, bonus


@bonus("constant")
@dataclass
class ConstantBonus(Part):
    """The same coefficient at every step. Raises ValueError for a negative one."""

    value: float

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise ValueError(f"ConstantBonus.value is {self.value}; give a coefficient of at least 0")

    @override
    def bonus(self) -> float:
        return self.value


@bonus("adaptive")
class AdaptiveBonus(Part):
    """A coefficient that rises by `delta` after each step with entropy <= target and falls by `delta` after any other.

    It stays within [least, most]. It applies only after a step with entropy <= target; otherwise, and before the first
    step, the bonus is 0. target: nats, or a curve over the run. Source: arXiv 2505.22312 (Skywork-OR1);
    SkyworkAI/Skywork-OR1, verl/trainer/ppo/core_algos.py, EntController, with target .2, delta 1e-4 and most .005; TRL,
    use_adaptive_entropy. Departs: the target may be a curve; at the target itself Skywork's falls and TRL's rises, and
    ours rises. Raises ValueError for delta <= 0, target <= 0 or start outside the range.
    """

    needs_entropy = True

    def __init__(
        self, target: float | Curve, *, delta: float = 0.005, start: float = 0.0, least: float = 0.0, most: float = 1.0
    ) -> None:
        curve = target if isinstance(target, Curve) else Curve.constant(target) if target > 0 else None
        if not (curve and delta > 0 and 0 <= least <= start <= most):
            raise ValueError(
                f"AdaptiveBonus: target {target}, delta {delta}, start {start} in [{least}, {most}]; target and delta "
                "must be positive and 0 <= least <= start <= most"
            )
        self._curve: Curve = curve.in_nats("AdaptiveBonus.target")
        self.delta, self.least, self.most = delta, least, most
        self._value, self._in_force = start, False

    @override
    def observe(self, step: Measured) -> None:
        self._in_force = step.entropy <= self._curve.at(step.progress)
        moved = self._value + (self.delta if self._in_force else -self.delta)
        self._value = min(max(moved, self.least), self.most)

    @override
    def bonus(self) -> float:
        return self._value if self._in_force else 0.0

    @override
    def state_dict(self) -> State:
        return {"value": self._value, "in_force": self._in_force}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._value, self._in_force = state["value"], state["in_force"]
