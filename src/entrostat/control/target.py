"""Holding the entropy on a curve by feedback on the clip thresholds: a strategy of ours, published nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.state import State
from entrostat.control.strategies import LOWER, STANDARD, UPPER, Phase, Strategy, progress
from entrostat.objective import ClipRule, LinearThreshold

LEAST_ENTROPY = 1e-6
NARROW = LinearThreshold.constant(0.05)
RAISING = ClipRule(UPPER, NARROW)
LOWERING = ClipRule(NARROW, LOWER)


@dataclass
class TargetEntropy(Strategy):
    """Moves both thresholds so that the entropy follows `curve`.

    An action u in [-1, 1] sets the rule by mixing: 1 is `raising`, 0 `neutral`, -1 `lowering`. By default they are the
    published thresholds on the side that acts and a narrow .05 on the other. The entropy's response is taken to be, a
    step,
        ln H_k - ln H_{k-1} = drift + gain u_{k-1}
    and both numbers are the least-squares fit to the measured steps, the last weighing most (a memory of `memory`
    steps) and a prior (drift 0, gain .05) weighing as much as one step with u = 1. The next action is the one for
    which the fit closes the gap to the curve within `reach` steps:
        u_k = clip(((ln curve(k + reach) - ln H_k) / reach - drift) / gain, -1, 1)
    so no gain has to be chosen. It cannot do more than `raising` and `lowering` can: where few tokens reach the band,
    widen them or take more gradient steps a batch. An entropy below 1e-6 nats counts as 1e-6.
    Raises ValueError for memory or reach below 1 and for an entropy that is not finite.
    """

    curve: Curve
    raising: ClipRule = RAISING
    neutral: ClipRule = STANDARD
    lowering: ClipRule = LOWERING
    memory: float = 30.0
    reach: int = 5
    _fit: _ResponseFit = field(init=False, repr=False)
    _step: int = field(default=-1, init=False, repr=False)
    _log_entropy: float | None = field(default=None, init=False, repr=False)
    _action: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.memory >= 1 and self.reach >= 1):
            raise ValueError(f"TargetEntropy: memory {self.memory} and reach {self.reach} must be at least 1 step")
        self._fit = _ResponseFit(decay=1 - 1 / self.memory)

    @override
    def rule(self, step: int, total_steps: int, entropy: float | None = None) -> ClipRule:
        progress(step, total_steps)
        if entropy is not None and step > self._step:
            self._act(step, total_steps, entropy)
        goal = self.raising if self._action > 0 else self.lowering
        return goal.mix(self.neutral, abs(self._action))

    @override
    def phase(self, step: int, total_steps: int) -> Phase:
        """The side to which the last action pushes, "hold" below a twentieth of its range."""
        if abs(self._action) < 0.05:
            return "hold"
        return "increase" if self._action > 0 else "decrease"

    @override
    def state_dict(self) -> State:
        return {
            "step": self._step,
            "log_entropy": self._log_entropy,
            "action": self._action,
            "moments": list(self._fit.moments),
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._log_entropy, self._action = state["step"], state["log_entropy"], state["action"]
        self._fit.moments = tuple(state["moments"])

    def _act(self, step: int, total_steps: int, entropy: float) -> None:
        if not math.isfinite(entropy):
            raise ValueError(f"entropy is {entropy} at step {step}; give a finite number of nats")
        now = math.log(max(entropy, LEAST_ENTROPY))
        if self._log_entropy is not None:
            self._fit.add(self._action, (now - self._log_entropy) / (step - self._step))
        drift, gain = self._fit.response()
        wanted = (math.log(self.curve.at(progress(step + self.reach, total_steps))) - now) / self.reach
        self._action = min(max((wanted - drift) / gain, -1.0), 1.0)
        self._step, self._log_entropy = step, now


@dataclass
class _ResponseFit:
    """change = drift + gain u by least squares with forgetting; moments: sums of 1, u, u^2, change, u change."""

    decay: float
    moments: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)

    PRIOR_GAIN = 0.05
    LEAST_GAIN = 0.005

    def add(self, action: float, change: float) -> None:
        """Take one measured step in."""
        new = (1.0, action, action * action, change, action * change)
        self.moments = tuple(self.decay * old + one for old, one in zip(self.moments, new, strict=True))

    def response(self) -> tuple[float, float]:
        """(drift, gain), the gain at least LEAST_GAIN so that noise cannot turn its sign."""
        count, u, uu, change, u_change = self.moments
        count, uu, u_change = count + 1, uu + 1, u_change + self.PRIOR_GAIN
        determinant = count * uu - u * u
        gain = max((count * u_change - u * change) / determinant, self.LEAST_GAIN)
        return (change - gain * u) / count, gain
