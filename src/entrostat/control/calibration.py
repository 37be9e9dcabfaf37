"""From entropy flow in logit space to nats: an online calibration that estimates its own error.

The flow of a step (`diagnostics.py`, flow_up + flow_down) is in nats per unit of step on each token's own logits.
Because of the learning rate, Adam's preconditioning and parameters that tokens share, the true change of entropy is at
best proportional to it, with a factor that drifts during the run; so the factor is fitted to the measured changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from entrostat.control.part import Resumable, State

Features = float | Sequence[float]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted change of entropy in nats, and the standard error of a new measurement around it.

    degrees: the degrees of freedom of that error, above 0.
    """

    change: float
    error: float
    degrees: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval that contains the measurement with this probability: change -+ t_degrees x error, in nats.

        Raises ValueError for a confidence outside 0 ... 1.
        """
        from scipy import stats  # takes half a second to import

        if not 0.0 < confidence < 1.0:
            raise ValueError(f"confidence is {confidence}, outside 0 ... 1; .95 is usual")
        half = float(stats.t.ppf((1 + confidence) / 2, self.degrees)) * self.error
        return self.change - half, self.change + half


@dataclass
class FlowCalibration(Resumable):
    """change = offset + sum of factor_i x_i by least squares; each new step multiplies older weights by 1 - 1/memory.

    The features x of a step are its flow and any other predictors of the change; `features` is their number k. With the
    weights w, n = sum w, the mean m of x and the scatter S = sum w (x - m)(x - m)', the error of a prediction at x is
        sqrt(s^2 (1 + 1/n + (x - m)' S^-1 (x - m))),   s^2 = sum w residual^2 / (n - k - 1).
    Raises ValueError for features < 1, a memory of k + 2 steps or fewer, and numbers that are not finite.
    """

    memory: float = 50.0
    features: int = 1
    _moments: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"FlowCalibration.features is {self.features}; give at least 1")
        if not self.memory > self.features + 2:
            raise ValueError(
                f"FlowCalibration.memory is {self.memory}; {self.features + 1} numbers are fitted, "
                f"give more than {self.features + 2} steps"
            )
        self._moments = np.zeros((self.features + 2, self.features + 2))

    def observe(self, features: Features, change: float) -> None:
        """Record a step: its features, and the measured change of the mean entropy on the same states, in nats."""
        row = np.array([1.0, *self._row(features), change])
        if not np.isfinite(row).all():
            raise ValueError(f"features {features} and change {change} must be finite numbers")
        self._moments = (1 - 1 / self.memory) * self._moments + np.outer(row, row)

    def predict(self, features: Features) -> Prediction | None:
        """Predict the change by a step; None before k + 2 steps with features that vary independently."""
        fit = self._fit()
        n = self._moments[0, 0]
        if fit is None or n <= self.features + 1:
            return None
        mean, mean_change, factors, inverse, residual = fit
        away = np.asarray(self._row(features)) - mean
        degrees = float(n) - self.features - 1
        variance = residual / degrees
        error = math.sqrt(variance * (1 + 1 / n + away @ inverse @ away))
        return Prediction(float(mean_change + factors @ away), error, degrees)

    @property
    def correlation(self) -> float | None:
        """The (multiple) correlation of features and change over the weighted steps; None while they do not vary."""
        fit = self._fit()
        total = self._scatter()[-1, -1]
        if fit is None or not total > 1e-12 * self._moments[-1, -1]:
            return None
        size = math.sqrt(max(1 - fit[4] / total, 0.0))
        return math.copysign(size, fit[2][0]) if self.features == 1 else size

    def _row(self, features: Features) -> Sequence[float]:
        row = [features] if isinstance(features, int | float) else features
        if len(row) != self.features:
            raise ValueError(f"features: got {len(row)}, the calibration has {self.features}")
        return row

    def _scatter(self) -> Array:
        """Weighted products of the features and the change about their means."""
        n, sums = self._moments[0, 0], self._moments[0, 1:]
        scatter: Array = self._moments[1:, 1:] - (np.outer(sums, sums) / n if n else 0.0)
        return scatter

    def _fit(self) -> tuple[Array, float, Array, Array, float] | None:
        """Mean features, mean change, factors, inverse scatter, sum of squared residuals; None while undefined."""
        scatter, squares = self._scatter(), np.diag(self._moments)[1:-1]
        spread = np.diag(scatter)[:-1]
        if not (self._moments[0, 0] > 0 and (spread > 1e-12 * squares).all()):
            return None
        scale = np.sqrt(spread)
        correlations = scatter[:-1, :-1] / np.outer(scale, scale)
        if np.linalg.eigvalsh(correlations)[0] < 1e-9:
            return None
        inverse = np.linalg.inv(correlations) / np.outer(scale, scale)
        factors = inverse @ scatter[:-1, -1]
        residual = max(float(scatter[-1, -1] - factors @ scatter[:-1, -1]), 0.0)
        means = self._moments[0, 1:] / self._moments[0, 0]
        return means[:-1], float(means[-1]), factors, inverse, residual

    @override
    def state_dict(self) -> State:
        return {"moments": self._moments.tolist()}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._moments = np.array(state["moments"], dtype=np.float64)
