"""What a run is for: whether its score has become better or worse since something else changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from entrostat.diagnosis.history import History, Series
from entrostat.diagnosis.statistics import roughness

WINDOW = 8  # values averaged on each side
LEAST = 3


@dataclass(frozen=True, slots=True)
class Change:
    """How a score has changed over a step.

        before = mean of the last 8 values before the step,   now = mean of the last 8
        error = roughness sqrt(1 / n_before + 1 / n_now),         z = (now - before) / error

    name: `heldout` or `reward`. scale: what a change is a share of, as in `Fall`.
    """

    name: str
    before: float
    now: float
    error: float
    scale: float

    @property
    def z(self) -> float:
        """The change in standard errors; infinite where the series has no noise."""
        gain = self.now - self.before
        if self.error > 0:
            return gain / self.error
        return 0.0 if gain == 0 else math.copysign(math.inf, gain)

    @property
    def risen(self) -> bool:
        """Certainly better, by at least a twentieth of the scale."""
        return self.z > 2.0 and self.now - self.before > 0.05 * self.scale

    @property
    def fallen(self) -> bool:
        """Certainly worse, by at least a tenth of the scale."""
        return self.z < -3.0 and self.before - self.now > 0.1 * self.scale


def change_since(history: History, step: int) -> Change | None:
    """The change since `step` of the held-out score, or of the reward where that was not evaluated on both sides."""
    for name in ("heldout", "reward"):
        change = score_change(name, history.series(name), step)
        if change is not None:
            return change
    return None


def has_risen(history: History, step: int) -> bool:
    """Whether the score is certainly better than before `step`; False where that cannot be told."""
    change = change_since(history, step)
    return change is not None and change.risen


def has_fallen(history: History, step: int) -> bool:
    """Whether the score is certainly worse than before `step`; False where that cannot be told."""
    change = change_since(history, step)
    return change is not None and change.fallen


def score_change(name: str, series: Series, step: int) -> Change | None:
    """The change of one series since `step`; None where there are fewer than three values on either side."""
    steps, values = series
    place = int(steps.searchsorted(step))
    place = max(place, LEAST)  # what began with the run is compared with the run's first values
    before, now = values[:place][-WINDOW:], values[place:][-WINDOW:]
    if len(before) < LEAST or len(now) < LEAST:
        return None
    error = roughness(values) * math.sqrt(1 / len(before) + 1 / len(now))
    return Change(name, float(before.mean()), float(now.mean()), error, scale_of(series))


def scale_of(series: Series) -> float:
    """What a change of a score is a share of: its greatest value where all lie in 0 ... 1, else its range."""
    low, high = float(series.values.min()), float(series.values.max())
    return high if low >= 0 and high <= 1 else high - low
