"""Feedback control along an entropy curve: from a measured entropy to an action, whatever carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.part import Resumable, State

LEAST_ENTROPY = 1e-6
PRIOR_GAIN = 0.05
LEAST_GAIN = 0.005


@dataclass
class CurveFollower(Resumable):
    """An action u in [-1, 1], 1 to raise and -1 to lower the entropy, so that it follows `curve`; no gain to choose.

    A trainer measures H_k in the forward pass of step k, before that step's update, which u_{k-1} controls; so an
    action is visible two measurements later. The assumed response per step is
        ln H_{k+1} - ln H_k = drift + gain u_{k-1}
    with both numbers fitted to the measured steps by least squares, recent steps weighing most (a memory of `memory`
    steps), and a prior (drift 0, gain .05) that weighs as much as one step with u = 1. The gain is at least .005, so
    that noise cannot change its sign. H' is the entropy expected after the current update; the next action is the one
    for which the fit closes the gap from H' to the curve within `reach` steps:
        ln H' = ln H_k + drift + gain u_{k-1}
        u_k = clip(((ln curve(k + 1 + reach) - ln H') / reach - drift) / gain, -1, 1)
    An entropy below 1e-6 nats counts as 1e-6. Raises ValueError for memory or reach below 1.
    """

    curve: Curve
    memory: float = 30.0
    reach: int = 5
    action: float = field(default=0.0, init=False)
    _previous: float = field(default=0.0, init=False, repr=False)
    _moments: tuple[float, ...] = field(default=(0.0,) * 5, init=False, repr=False)
    _log_entropy: float | None = field(default=None, init=False, repr=False)
    _progress: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.curve.in_nats("curve")
        if not (self.memory >= 1 and self.reach >= 1):
            raise ValueError(f"memory {self.memory} and reach {self.reach} must be at least 1 step")

    def observe(self, entropy: float, progress: float) -> float:
        """Return the action after a step with this entropy in nats, when the share `progress` of the run is completed.

        Call it once per step. Raises ValueError for an entropy that is not finite.
        """
        if not math.isfinite(entropy):
            raise ValueError(f"entropy is {entropy} at progress {progress:g}; give a finite number of nats")
        now = math.log(max(entropy, LEAST_ENTROPY))
        if self._log_entropy is not None:
            self._remember(self._previous, now - self._log_entropy)
        drift, gain = self._response()
        expected = now + drift + gain * self.action
        ahead = progress + (1 + self.reach) * (progress - self._progress)
        slope = (math.log(self.curve.at(ahead)) - expected) / self.reach
        self._previous, self.action = self.action, min(max((slope - drift) / gain, -1.0), 1.0)
        self._log_entropy, self._progress = now, progress
        return self.action

    @override
    def state_dict(self) -> State:
        return {
            "action": self.action,
            "seen": self._previous,
            "moments": list(self._moments),
            "log_entropy": self._log_entropy,
            "progress": self._progress,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.action, self._previous, self._moments = state["action"], state["seen"], tuple(state["moments"])
        self._log_entropy, self._progress = state["log_entropy"], state["progress"]

    def _remember(self, action: float, change: float) -> None:
        """Add a step to the sums of 1, u, u^2, change and u change."""
        new = (1.0, action, action * action, change, action * change)
        decay = 1 - 1 / self.memory
        self._moments = tuple(decay * old + one for old, one in zip(self._moments, new, strict=True))

    def _response(self) -> tuple[float, float]:
        """Return (drift, gain) of the fit."""
        count, u, uu, change, u_change = self._moments
        count, uu, u_change = count + 1, uu + 1, u_change + PRIOR_GAIN
        gain = max((count * u_change - u * change) / (count * uu - u * u), LEAST_GAIN)
        return (change - gain * u) / count, gain
