"""The statistics that detectors share: noise, windows, a line with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from entrostat.diagnosis.history import Series, Values

MEAN_TO_SIGMA = math.sqrt(math.pi / 2)  # mean absolute value of a normal -> standard deviation
LOCAL = 400  # last values, from which the current noise is estimated to 5 %
MAD_TO_SIGMA = 1.4826  # median absolute deviation of a normal -> standard deviation


def mean(values: Values) -> float:
    """The mean of n >= 1 values. NumPy's own takes twice as long over some hundred of them."""
    return float(np.add.reduce(values)) / len(values)


def deviation(values: Values) -> float:
    """The standard deviation of n >= 1 values."""
    apart = values - mean(values)
    return math.sqrt(float(apart @ apart) / len(values))


def median(values: Values) -> float:
    """The median of n >= 1 values. NumPy's takes 20 microseconds over a handful of them, sorting takes one."""
    n = len(values)
    half = n // 2
    middle = half if n % 2 else [half - 1, half]
    ordered = sorted(values.tolist()) if n <= 32 else np.partition(values, middle)
    return float(ordered[half] if n % 2 else (ordered[half - 1] + ordered[half]) / 2)


def median_above(values: Values, level: float) -> bool:
    """Whether the median of n >= 1 values is at or above `level`; where most are, without sorting them."""
    return 2 * int(np.count_nonzero(values >= level)) > len(values) + 1 or median(values) >= level


def noise(values: Values) -> float:
    """Standard deviation of a series around its own slow course, robust to trends and to outliers.

        d = |x[t] - x[t-1]|  over the last `LOCAL` values
        sigma = max(1.4826 median(d), sqrt(pi / 2) mean(d) / 2) / sqrt(2)

    The median alone is 0 for a series most of whose values are equal, such as a reward that is usually the same; half
    of what the mean says then stands in. 0 for fewer than two values.
    """
    if len(values) < 2:
        return 0.0
    recent = values[-LOCAL:]
    steps = np.abs(recent[1:] - recent[:-1])
    return max(MAD_TO_SIGMA * median(steps), MEAN_TO_SIGMA / 2 * mean(steps)) / math.sqrt(2.0)


def roughness(values: Values) -> float:
    """Standard deviation of a series around its own slow course, by the mean square of its differences.

        sigma = sqrt(mean (x[t] - x[t-1])^2 / 2)               over the last `LOCAL` values

    Other than `noise` it counts rare large values in full, as the error of a mean does.
    """
    if len(values) < 2:
        return 0.0
    recent = values[-LOCAL:]
    steps = recent[1:] - recent[:-1]
    return math.sqrt(float(steps @ steps) / len(steps) / 2)


def lasting(values: Values) -> float:
    """By how much more means of several values stray than white noise would let them, at least 1; 1 below 16 values.

        d_w[t] = mean of w values from t on - mean of the w before,    s_w = median |d_w - median d_w|
        max over w of  sqrt(w) s_w / s_1 - sqrt(w / n)         w = 2, 3, 5, 8, 13, 21, at most n / 8

    Of noise that lasts, as when tasks of like difficulty follow one another, means are less certain than their number
    says. The last term is about the error of such a ratio. A line has no part in it, and a single step moves no median.
    Source: the deviation of Allan (1966), with medians.
    """
    recent = values[-LOCAL:]
    n = len(recent)
    base = _spread(np.diff(recent)) if n >= 16 else 0.0
    if base == 0.0:
        return 1.0
    total = np.concatenate([[0.0], np.cumsum(recent)])
    most = 1.0
    for w in (2, 3, 5, 8, 13, 21):
        if w > n // 8:
            break
        means = (total[w:] - total[:-w]) / w
        most = max(most, math.sqrt(w) * _spread(means[w:] - means[:-w]) / base - math.sqrt(w / n))
    return most


def correlated(values: Values, span: int = 8, most: float = 0.7) -> float:
    """By how much means of `span` values stray more than white noise with the same differences would let them, where
    each value takes over a part phi of the deviation of the one before; 1 below 9 values.

        d[t] = x[t] - x[t-1],   phi = 1 + 2 sum d[t] d[t-1] / sum d[t]^2, held in 0 ... `most`
        sqrt((1 + 2 sum_j (1 - j / span) phi^j) / (1 - phi))              j = 1 ... span - 1

    A trend has hardly a part in it. `most`: of few values a larger phi is hardly told from a trend.
    """
    recent = values[-LOCAL:]
    steps = recent[1:] - recent[:-1]
    power = float(steps @ steps)
    if len(steps) < 8 or power == 0.0:
        return 1.0
    phi = min(max(1 + 2 * float(steps[1:] @ steps[:-1]) / power, 0.0), most)
    alike = 2 * sum((1 - j / span) * phi**j for j in range(1, span))
    return math.sqrt((1 + alike) / (1 - phi))


def once_each(series: Series) -> Series:
    """A series without repetitions: one of every m values where each stands m times in a row or more.

    m is the least number of equal values in a row; the first and the last may have been cut. A batch that is used for
    m updates has one reward, which hosts log at each of them.
    """
    values = series.values
    early = values[1:33] != values[:32][: len(values) - 1]
    if (early[1:] & early[:-1]).any():  # a value that stands alone
        return series
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    repeated = int(np.diff(changes).min()) if len(changes) >= 2 else 1
    if repeated < 2:
        return series
    bounds = zip([0, *changes], [*changes, len(series)], strict=True)
    kept = np.concatenate([np.arange(first, last, repeated) for first, last in bounds])
    return Series(series.steps[kept], series.values[kept])


def _spread(values: Values) -> float:
    return median(np.abs(values - median(values)))


def rolling_mean(values: Values, window: int) -> Values:
    """Means of every `window` consecutive values, (n - window + 1,); empty where there are fewer."""
    if len(values) < window:
        return np.empty(0)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[window:] - total[:-window]) / window)


def rolling_median(values: Values, window: Literal[3, 5]) -> Values:
    """Medians of every `window` consecutive values, (n - window + 1,); empty where there are fewer.

    By comparisons of shifted copies, for detectors take it of the whole series at every row: of five values the median
    is that of e, the larger of the two lows of the pairs (a, b) and (c, d), and the smaller of their two highs.
    """
    if len(values) < window:
        return np.empty(0)
    *first, last = (values[i : len(values) - window + 1 + i] for i in range(window))
    low, high = np.minimum(*first[:2]), np.maximum(*first[:2])
    if window == 5:
        low, high = np.maximum(low, np.minimum(*first[2:])), np.minimum(high, np.maximum(*first[2:]))
        low, high = np.minimum(low, high), np.maximum(low, high)
    return np.asarray(np.maximum(low, np.minimum(high, last)))


def began(series: Series, level: float, upwards: bool) -> int:
    """The step at which a change began that has not been undone: the first from which on the series is past `level`.

    Judged by medians of three values, so that a single value on either side moves nothing; of a jump it is the first
    step after it. upwards: whether past means above.
    """
    steps, values = series
    if len(values) < 3:
        return int(steps[0])
    smooth = rolling_median(values, 3)
    before = np.flatnonzero(smooth <= level if upwards else smooth >= level)
    return int(steps[min(int(before[-1]) + 2, len(steps) - 1)]) if len(before) else int(steps[0])


def expected_maximum(count: float) -> float:
    """About E[max of n independent standard normals], Phi^-1((n - .375) / (n + .25)) (Blom 1958); 0 for n <= 1."""
    return 0.0 if count <= 1 else _maximum(count)


@lru_cache(maxsize=4096)
def _maximum(count: float) -> float:
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def student(freedom: float, level: float) -> float:
    """The quantile of Student's t at `level`, above .9, for 2 or more degrees of freedom: to 5e-4, from 3 on to 2e-5.

    Source: Hill (1970), algorithm 396 of the ACM. SciPy is exact, but its import takes longer than a log.
    """
    n, p = freedom, 2 * (1 - level)
    a = 1 / (n - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * n
    y = (d * p) ** (2 / n)
    if y <= 0.05 + a:
        y = ((1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1) * (n + 1) / (
            n + 2
        ) + 1 / y
        return math.sqrt(n * y)
    x = NormalDist().inv_cdf(p / 2)
    if n < 5:
        c += 0.3 * (n - 4.5) * (x + 0.6)
    c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
    y = (((((0.4 * x**2 + 6.3) * x**2 + 36) * x**2 + 94.5) / c - x**2 - 3) / b + 1) * x
    return math.sqrt(n * math.expm1(a * y**2))


@dataclass(frozen=True, slots=True)
class Line:
    """A least-squares line y = intercept + slope x; error: the slope's standard error."""

    slope: float
    intercept: float
    error: float
    freedom: int

    def at(self, x: float) -> float:
        """The line's value."""
        return self.intercept + self.slope * x

    def slope_bounds(self, confidence: float = 0.95) -> tuple[float, float]:
        """The slope's two-sided interval, by Student's t."""
        half = student(self.freedom, (1 + confidence) / 2) * self.error
        return self.slope - half, self.slope + half


def fit_line(x: Values, y: Values) -> Line:
    """The least-squares line through n >= 4 points.

    Successive residuals of a training curve are alike, so the standard error of white noise is widened by
    sqrt((1 + rho) / (1 - rho)), rho the part of their lag-1 correlation that white noise does not explain (beyond its
    two standard errors, 2 / sqrt(n)), held in 0 ... .9.
    """
    n = len(x)
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residuals = y - y.mean() - slope * centred
    power = float(residuals @ residuals)
    alike = 0.0 if power == 0.0 else float(residuals[1:] @ residuals[:-1]) / power
    rho = min(max(alike - 2 / math.sqrt(n), 0.0), 0.9)
    error = math.sqrt(power / (n - 2) / spread * (1 + rho) / (1 - rho))
    return Line(slope, float(y.mean()) - slope * float(x.mean()), error, n - 2)
