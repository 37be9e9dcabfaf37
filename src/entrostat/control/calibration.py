"""From entropy flow in logit space to nats: an online calibration with its own error.

The flow of a step (`diagnostics.py`, flow_up + flow_down) is nats a unit of step on each token's own logits. Learning
rate, Adam's preconditioning and parameters that tokens share make the true change of entropy proportional to it at
best, with a factor that drifts along the run; so the factor is fitted to measured changes as they come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from entrostat.control.state import Resumable, State


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted change of entropy in nats, and the standard error of a new measurement around it."""

    change: float
    error: float


@dataclass
class FlowCalibration(Resumable):
    """change = offset + factor flow by least squares, where a pair counts decay = 1 - 1/memory less with each new one.

    With weights w, n the sum of the w and m the mean of the flows, the error of a prediction at a flow x is
        sqrt(s^2 (1 + 1/n + (x - m)^2 / sum w (flow - m)^2)),   s^2 = sum w residual^2 / (n - 2).
    Raises ValueError for a memory of 3 pairs or fewer and for numbers that are not finite.
    """

    memory: float = 50.0
    _moments: tuple[float, ...] = field(default=(0.0,) * 6, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.memory > 3:
            raise ValueError(f"FlowCalibration.memory is {self.memory}; two numbers are fitted, give more than 3 pairs")

    def observe(self, flow: float, change: float) -> None:
        """Take in a step: its flow, and the measured change of the mean entropy on the same states, in nats."""
        if not (math.isfinite(flow) and math.isfinite(change)):
            raise ValueError(f"flow {flow} and change {change} must be finite numbers")
        new = (1.0, flow, change, flow * flow, flow * change, change * change)
        decay = 1 - 1 / self.memory
        self._moments = tuple(decay * old + one for old, one in zip(self._moments, new, strict=True))

    def predict(self, flow: float) -> Prediction | None:
        """The change that a flow brings; None before three pairs with different flows."""
        n, x, _, xx, _, _ = self._moments
        _, offset, factor, residual = self._fit()
        spread = xx - x * x / n if n else 0.0
        if n <= 2 or not spread > 1e-12 * xx:
            return None
        variance = residual / (n - 2)
        error = math.sqrt(variance * (1 + 1 / n + (flow - x / n) ** 2 / spread))
        return Prediction(offset + factor * flow, error)

    @property
    def correlation(self) -> float | None:
        """The correlation of flow and change over the remembered pairs; None while either does not vary."""
        return self._fit()[0]

    def _fit(self) -> tuple[float | None, float, float, float]:
        """(correlation, offset, factor, weighted sum of squared residuals)."""
        n, x, y, xx, xy, yy = self._moments
        if n == 0:
            return None, 0.0, 0.0, 0.0
        var_x, var_y, cov = xx - x * x / n, yy - y * y / n, xy - x * y / n
        if not (var_x > 1e-12 * xx and var_y > 1e-12 * yy):
            return None, y / n, 0.0, max(var_y, 0.0)
        factor = cov / var_x
        return cov / math.sqrt(var_x * var_y), (y - factor * x) / n, factor, max(var_y - factor * cov, 0.0)

    @override
    def state_dict(self) -> State:
        return {"moments": list(self._moments)}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._moments = tuple(state["moments"])
