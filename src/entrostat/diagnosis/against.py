"""Two runs side by side: in what, and since when, one parted from the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from entrostat.diagnosis.columns import QUANTITIES
from entrostat.diagnosis.history import Series, Values
from entrostat.diagnosis.reading import Log
from entrostat.diagnosis.statistics import rolling_mean, roughness

WINDOW = 5
LEAST = 10  # steps that both runs have
CERTAIN = 4.5


@dataclass(frozen=True, slots=True)
class Parting:
    """One quantity in which two runs end apart. step: since when. here, there: the means of the last values of each."""

    quantity: str
    step: int
    here: float
    there: float
    z: float


def partings(log: Log, other: Log) -> list[Parting]:
    """The quantities in which `log` and `other` end apart, the earliest first.

        d_t = a_t - b_t at every step of `log` within the steps of `other` (b between two of its steps: the line)
        z = mean of the last w differences / (sigma / sqrt(w)),   sigma^2 = roughness(a)^2 + roughness(b)^2
        |z| > 4.5,   since: the first step after the last at which the mean of w differences was below a third of that

    Steps have to mean the same in both runs. Of quantities that grow over orders of magnitude the logarithms differ.
    """
    found = [parting for name in QUANTITIES if (parting := _parting(name, _series(log, name), _series(other, name)))]
    return sorted(found, key=lambda parting: parting.step)


def _parting(name: str, here: Series, there: Series) -> Parting | None:
    if len(here) < LEAST or len(there) < LEAST:
        return None
    both = (here.steps >= there.steps[0]) & (here.steps <= there.steps[-1])
    steps, a = here.steps[both], here.values[both]
    if len(steps) < LEAST:
        return None
    b = np.interp(steps, there.steps, there.values)
    first, second = _comparable(a, b)
    sigma = math.hypot(roughness(first), roughness(second))
    means = rolling_mean(first - second, WINDOW)
    apart = float(means[-1])
    scale = float(np.ptp(np.concatenate([first, second])))
    if abs(apart) <= 0.1 * scale or abs(apart) <= CERTAIN * sigma / math.sqrt(WINDOW):
        return None
    together = np.flatnonzero(np.sign(apart) * means < abs(apart) / 3)
    place = min(int(together[-1]) + WINDOW, len(steps) - 1) if len(together) else 0
    z = apart / (sigma / math.sqrt(WINDOW)) if sigma > 0 else math.copysign(math.inf, apart)
    return Parting(name, int(steps[place]), float(a[-WINDOW:].mean()), float(b[-WINDOW:].mean()), z)


def _comparable(a: Values, b: Values) -> tuple[Values, Values]:
    """Both as they are, or their logarithms where all are above 0 and spread over more than a factor of ten."""
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    return (np.log(a), np.log(b)) if low > 0 and high > 10 * low else (a, b)


def _series(log: Log, name: str) -> Series:
    rows = [(step, values[name]) for step, values in log.rows if name in values and math.isfinite(values[name])]
    return Series(np.array([step for step, _ in rows], np.int64), np.array([value for _, value in rows], float))
