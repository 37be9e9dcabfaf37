"""Feedback control of the entropy along a curve, by a response that is estimated during the run. Ours, unpublished."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.following import LEAST_ENTROPY
from entrostat.control.part import Resumable, State

Array = NDArray[np.float64]

HISTORY = 32
"""Actions that are remembered, and steps over which an action may take its effect."""
DELAYS, LAGS = (0, 2, 4, 6, 8, 10), (3.0, 9.0)
"""The responses considered, in steps: pure delays, and first-order lags such as Adam's momentum."""
NOISES = (0.02, 0.07, 0.25)
"""The standard deviations of a measured ln H considered."""
PRIOR_GAIN, LEAST_GAIN, GREATEST_GAIN = 0.05, 0.002, 1.0
PRIOR_SPREAD = (0.03, 0.1)
"""Standard deviations of drift and gain before the first step."""
WANDER = (0.02, 0.002, 0.001)
"""Standard deviations of the change of level, drift and gain in a step."""
FORGETTING = 0.998
CAUTION = 0.05


def _shapes() -> Array:
    """(shapes, HISTORY): which share of an action takes effect j steps after the earliest possible one."""
    rows = [np.eye(HISTORY)[delay] for delay in DELAYS] + [np.exp(-np.arange(HISTORY) / lag) for lag in LAGS]
    return np.array([row / row.sum() for row in rows])


RESPONSES = np.repeat(_shapes(), len(NOISES), 0)
VARIANCES = np.tile(np.square(NOISES), len(DELAYS) + len(LAGS))
MANY = len(VARIANCES)


@dataclass
class Thermostat(Resumable):
    """An action u in [-1, 1], 1 to raise and -1 to lower the entropy, so that it follows `curve`; no gain to choose.

    A trainer measures H_k in the forward pass of step k, before that step's update, so the action chosen after step k
    is visible two measurements later at the earliest. M = 24 models of the response are compared, one for each shape w
    (pure delays of 0 to 10 steps, first-order lags of 3 and 9) and each noise:
        x_{k+1} = x_k + drift + gain sum_j w_j u_{k-1-j},    ln H_k = x_k + noise
    A Kalman filter per model estimates level x, drift and gain, all of which may wander, and bounds the gain to
    [.002, 1]. A model weighs exp(its log-likelihood), of which .2 % is forgotten per step. Each model chooses the
    constant action that puts its level on the curve h = 1 + reach + (its mean delay) steps ahead, less boldly the less
    its gain is known:
        u = (ln curve(k + h) - x(k + h | no further action)) / (sum of its response over h)
            x gain / (gain^2 + .05 var gain)
    clipped to [-1, 1]. The weighted mean over the models is the action; it moves by at most `most_change` per step.
    There is no integral that could wind up: the filters see the action that was taken, and the drift does its work.
    An entropy below 1e-6 nats counts as 1e-6. Cost: about 70 microseconds per step.
    Raises ValueError for a reach below 1 and for most_change outside (0, 2].
    """

    curve: Curve
    reach: int = 5
    most_change: float = 0.25
    action: float = field(default=0.0, init=False)
    _progress: float = field(default=0.0, init=False, repr=False)
    _first: float | None = field(default=None, init=False, repr=False)
    _past: Array = field(init=False, repr=False)  # (HISTORY + 1,), the newest first
    _means: Array = field(init=False, repr=False)  # (MANY, 3): level, drift, gain
    _covariances: Array = field(init=False, repr=False)  # (MANY, 3, 3)
    _evidence: Array = field(init=False, repr=False)  # (MANY,), log-likelihood

    def __post_init__(self) -> None:
        if not self.reach >= 1:
            raise ValueError(f"reach is {self.reach}; give at least 1 step")
        if not 0 < self.most_change <= 2:
            raise ValueError(f"most_change is {self.most_change}; give a number in (0, 2], the action lies in [-1, 1]")
        self._past = np.zeros(HISTORY + 1)
        self._means, self._covariances = np.zeros((MANY, 3)), np.zeros((MANY, 3, 3))
        self._evidence = np.zeros(MANY)
        self._ahead = 1 + int(self.reach) + np.ceil(RESPONSES @ np.arange(HISTORY)).astype(int)
        taken = np.concatenate([np.zeros((MANY, 1)), RESPONSES.cumsum(1)], 1)

        def by(steps: Array) -> Array:
            """The share of an action that has taken effect after so many steps."""
            return np.take_along_axis(taken, np.minimum(steps, HISTORY).astype(int), 1)

        ages, steps = np.arange(HISTORY) + np.zeros((MANY, 1)), np.arange(self._ahead.max()) + np.zeros((MANY, 1))
        self._of_past = by(ages + self._ahead[:, None]) - by(ages)
        self._of_next = (by(steps) * (steps < self._ahead[:, None])).sum(1)

    @property
    def gain(self) -> float:
        """The estimated change of ln H per step at u = 1, the mean over the models."""
        return float(self._weights() @ self._means[:, 2])

    @property
    def aim(self) -> float | None:
        """The curve at the present progress in nats; None before the first measurement if it is relative to that."""
        if self.curve.unit == "start" and self._first is None:
            return None
        return self.curve.at(self._progress, self._first)

    def observe(self, entropy: float, progress: float) -> float:
        """Return the action after a step with this entropy in nats, when the share `progress` of the run is completed.

        Call it once per step. Raises ValueError for an entropy that is not finite.
        """
        if not math.isfinite(entropy):
            raise ValueError(f"entropy is {entropy} at progress {progress:g}; give a finite number of nats")
        now = math.log(max(entropy, LEAST_ENTROPY))
        if self._first is None:
            self._first = math.exp(now)
            self._means[:] = now, 0.0, PRIOR_GAIN
            self._covariances[:] = np.diag([0.0, *np.square(PRIOR_SPREAD)])
            self._covariances[:, 0, 0] = VARIANCES
        else:
            self._predict()
            self._correct(now)
        most = self.most_change
        moved = min(max(self._wanted(progress), self.action - most), self.action + most)
        self.action, self._progress = min(max(moved, -1.0), 1.0), progress
        self._past = np.concatenate([[self.action], self._past[:-1]])
        return self.action

    def _predict(self) -> None:
        """Move every model by one step; the newest action has no effect yet."""
        step = np.tile(np.eye(3), (MANY, 1, 1))
        step[:, 0, 1], step[:, 0, 2] = 1.0, RESPONSES @ self._past[1:]
        self._means = np.einsum("mij,mj->mi", step, self._means)
        self._covariances = step @ self._covariances @ step.transpose(0, 2, 1) + np.diag(np.square(WANDER))
        # without any action the gain would become ever less certain
        excess = np.maximum(np.sqrt(self._covariances[:, 2, 2]) / PRIOR_SPREAD[1], 1.0)
        self._covariances[:, 2, :] /= excess[:, None]
        self._covariances[:, :, 2] /= excess[:, None]

    def _correct(self, now: float) -> None:
        """Correct every model by the measured ln H."""
        surprise, variance = now - self._means[:, 0], self._covariances[:, 0, 0] + VARIANCES
        trust = self._covariances[:, :, 0] / variance[:, None]
        self._means = self._means + trust * surprise[:, None]
        self._means[:, 2] = self._means[:, 2].clip(LEAST_GAIN, GREATEST_GAIN)
        covariances = self._covariances - trust[:, :, None] * self._covariances[:, None, 0, :]
        self._covariances = (covariances + covariances.transpose(0, 2, 1)) / 2
        self._evidence = FORGETTING * self._evidence - (np.log(variance) + surprise**2 / variance) / 2

    def _weights(self) -> Array:
        likelihood: Array = np.exp(self._evidence - self._evidence.max())
        shares: Array = likelihood / likelihood.sum()
        return shares

    def _wanted(self, progress: float) -> float:
        """The action that the models choose, in [-1, 1]."""
        level, drift, gain = self._means.T
        at = progress + self._ahead * (progress - self._progress)
        aim = np.log([self.curve.at(min(share, 1.0), self._first) for share in at.tolist()])
        expected = level + self._ahead * drift + gain * (self._of_past @ self._past[:HISTORY])
        boldness = gain / (gain**2 + CAUTION * self._covariances[:, 2, 2]) / self._of_next
        return float(self._weights() @ ((aim - expected) * boldness).clip(-1, 1))

    @override
    def state_dict(self) -> State:
        return {
            "action": self.action,
            "progress": self._progress,
            "first": self._first,
            "past": self._past.tolist(),
            "means": self._means.tolist(),
            "covariances": self._covariances.tolist(),
            "evidence": self._evidence.tolist(),
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        shapes = {"past": (HISTORY + 1,), "means": (MANY, 3), "covariances": (MANY, 3, 3), "evidence": (MANY,)}
        arrays = {name: np.array(state.get(name, ()), dtype=np.float64) for name in shapes}
        if wrong := [name for name, array in arrays.items() if array.shape != shapes[name]]:
            raise ValueError(
                f"state of the thermostat: {', '.join(wrong)} missing or of another size, so it was saved by another "
                "version of entrostat; finish the run with that version, or start it again"
            )
        self.action, self._progress, self._first = state["action"], state["progress"], state["first"]
        self._past, self._means, self._covariances, self._evidence = arrays.values()
