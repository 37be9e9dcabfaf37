"""How far and how surely a score has come down from its peak, by the noise of its own values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from entrostat.diagnosis.history import Series, Values
from entrostat.diagnosis.statistics import (
    LOCAL,
    correlated,
    expected_maximum,
    lasting,
    rolling_mean,
    student,
)

SPANS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
"""So many last values are averaged: a deep fall shows in few, a slight one in many."""
BEFORE, WHOLE = 24, 80  # values that tell how long noise lasts: of those up to the peak, and of a whole series
LEAST_ERRORS = 2.0
LARGEST_BATCH = 1024  # completions
DEGREES_PER_DIFFERENCE = 2 / 3  # degrees of freedom of a variance by differences, per difference


@dataclass(frozen=True, slots=True)
class Fall:
    """How far a score has come down from its peak.

    peak, now: means of `width` and of `span` values. drop: their difference on the scale on which noise is even;
    floor: the drop that a score which never changes would show there; error: the standard error of the drop.
    needed: how many errors the drop has to exceed the floor by. scale: what the gap is a share of.
    """

    peak: float
    peak_step: int
    now: float
    width: int
    span: int
    drop: float
    floor: float
    error: float
    needed: float
    scale: float

    @property
    def gap(self) -> float:
        """How far it has come down."""
        return self.peak - self.now

    @property
    def noise(self) -> float:
        """What of the gap the floor explains."""
        return self.gap * min(self.floor / self.drop, 1.0)

    @property
    def errors(self) -> float:
        """By how many errors the drop exceeds the floor."""
        return _ratio(self.drop - self.floor, self.error)


def fall_from_peak(
    series: Series, window: int, share: float, chance: float, design: float, prior: float, error: float | None = None
) -> Fall | None:
    """The fall of a series of at least `window` + 2 values; None for one of less than `share` or of less than two
    errors, or while its peak is too near to tell.

        y = arcsin sqrt(x) for a score within 0 ... 1, for the variance of a mean of N completions is then about
            design / 4 N whatever the mean; y = x for others
        peak = max of means of w values y,   now = mean of the last k values, all after the peak
        sigma^2 = lasts^2 max((prior design / 4 N + d s^2) / (prior + d), 1 / 4 N), at least error^2
        s^2 = mean (y[t] - y[t-1])^2 / 2 up to the peak and among the last k, d its degrees of freedom
        floor = sigma / sqrt(w) E[max of n / w standard normals]           the winner's curse of the peak
        error = sqrt(sigma^2 / w + later^2 / k),   later = sigma, or 0 where the last k > 3 values are all the same
        needed = Student's t of prior + d degrees of freedom at 1 - chance / 2 n

    at the w and k of `SPANS`, w at least `window` and k at least 2 for a reward, whose tasks differ, where
    drop - floor - needed x error is largest in errors. N, the completions of a batch, is the least number of which all
    values are multiples of 1 / N; without one the prior is left out. chance: about how often a series of 8 values that
    never falls passes at some time; one of 400 does three times as often. design: by how much tasks that differ widen
    the variance of right and wrong answers. error: of one evaluation; None for a reward.
    Sources: Anscombe (1948) for the scale, Kish (1965) for the design effect.
    """
    values = series.values
    n = len(values)
    total = _sums(values)
    spans = [span for span in SPANS if (2 if error is None else 1) <= span <= n - window]
    now = {span: float(total[-1] - total[-1 - span]) / span for span in spans}
    highest = float((total[window:] - total[:-window]).max()) / window
    if not now or highest - min(now.values()) <= share * _scale(series, highest):
        return None
    bounded = bool(values.min() >= 0 and values.max() <= 1)
    y = np.arcsin(np.sqrt(values)) if bounded else values
    batch = completions_per_batch(values) if bounded else None
    assumed = prior if batch else 0.0
    sampling = 1 / (4 * batch) if batch else 0.0
    sums, squares, same = _sums(y), _sums(np.diff(y) ** 2 / 2), _same(values)
    widths, tops = _widths(window, n), []
    for width in widths:
        tops.append(int(((sums[width:] - sums[:-width]) / width).argmax()))
    top, w, k = np.array(tops)[:, None], np.array(widths)[:, None], np.array(spans)
    end = top + w  # (widths, 1); what follows is (widths, spans)
    first = np.maximum(end - 1 - LOCAL, 0)
    power = squares[end - 1] - squares[first] + squares[-1] - squares[n - k]
    counted = end - 1 - first + k - 1
    freedom = assumed + counted * DEGREES_PER_DIFFERENCE
    variance = (assumed * design * sampling + power * DEGREES_PER_DIFFERENCE) / freedom
    sigma = np.maximum(np.sqrt(np.maximum(variance, sampling)), error or 0.0)
    floor = sigma / np.sqrt(w) * np.array([expected_maximum(n / width) for width in widths])[:, None]
    unsure = sigma * np.sqrt(1 / w + np.where((k > 3) & (k <= same), 0.0, 1 / k))
    drop = (sums[end] - sums[top]) / w - (sums[-1] - sums[n - k]) / k
    seen = (k <= n - end) & (drop - floor >= LEAST_ERRORS * unsure)
    if error is None and seen.any():  # a reward; how long its noise lasts takes a while to tell
        lasts = _noise_lasts(y, window, batch is not None)
        floor, unsure = lasts * floor, lasts * unsure
        seen &= drop - floor >= LEAST_ERRORS * unsure
    place = _most_certain(seen, drop - floor, unsure, freedom, 1 - chance / (2 * n))
    if place is None:
        return None
    (row, column), needed = place
    start, stop, width, span = tops[row], int(end[row, 0]), widths[row], spans[column]
    peak = float(total[stop] - total[start]) / width
    fall = Fall(
        peak=peak,
        peak_step=int(series.steps[stop - 1]),
        now=now[span],
        width=width,
        span=span,
        drop=float(drop[row, column]),
        floor=float(floor[row, column]),
        error=float(unsure[row, column]),
        needed=needed,
        scale=_scale(series, peak),
    )
    return fall if fall.gap > share * fall.scale else None


def _most_certain(
    seen: npt.NDArray[np.bool_], excess: Values, error: Values, freedom: Values, level: float
) -> tuple[tuple[int, int], float] | None:
    """Where excess / error - t is largest of what is `seen`, and Student's t there; None where nothing is seen.

    t is above the normal's quantile z, so that places are left out as soon as excess / error - z is below the best.
    """
    best: tuple[float, tuple[int, int], float] | None = None
    z = NormalDist().inv_cdf(level)
    found = [(_ratio(float(excess[i, j]), float(error[i, j])), int(i), int(j)) for i, j in np.argwhere(seen)]
    for errors, i, j in sorted(found, reverse=True):
        if best is not None and errors - z <= best[0]:
            break
        needed = student(max(float(freedom[i, j]), 2.0), level)
        if best is None or errors - needed > best[0]:
            best = errors - needed, (i, j), needed
    return None if best is None else best[1:]


def completions_per_batch(shares: Values) -> int | None:
    """The least N up to 1024 of which all shares are multiples of 1 / N; None for none.

    Shares may be rounded to 3 decimals for N up to 100, to 4 beyond: N x share is within .06 of a whole number. That
    holds for one in eight of arbitrary numbers, and so for hardly any N of eight of them.
    """
    if len(shares) < 6:
        return None
    sizes = np.arange(2, LARGEST_BATCH + 1)
    for some in (shares[:8], shares[8:40], shares):  # few values rule out nearly all sizes
        counts = sizes[:, None] * some
        close = np.minimum(6e-4 * sizes, 0.06)[:, None]
        sizes = sizes[(np.abs(counts - np.round(counts)) <= close).all(axis=1)]
    return int(sizes[0]) if len(sizes) else None


def _ratio(drop: float, error: float) -> float:
    return drop / error if error > 0 else math.copysign(math.inf, drop)


def _sums(values: Values) -> Values:
    return np.concatenate([[0.0], np.cumsum(values)])


def _noise_lasts(values: Values, window: int, expected: bool) -> float:
    """By how much means stray more than those of white noise, by the n values up to the peak: the fall is not noise.

    Where the peak came too early for that, by all of at least `WHOLE` values. Unless the size of a batch says what
    noise is `expected`: at least by `correlated`, and times 1 + 1 / sqrt(n), for n values tell little of it.
    """
    top = int(rolling_mean(values, window).argmax()) + window
    lasts = lasting(values[:top]) if top >= BEFORE else lasting(values) if len(values) >= WHOLE else 1.0
    if expected:
        return lasts
    return max(lasts, correlated(values[:top] if top >= BEFORE // 2 else values)) * (1 + 1 / math.sqrt(top))


def _same(values: Values) -> int:
    """How many of the last values are equal."""
    last = values[-SPANS[-1] :]
    other = np.flatnonzero(last != last[-1])
    return len(last) - 1 - int(other[-1]) if len(other) else len(last)


def _widths(window: int, count: int) -> list[int]:
    """How many values a peak is the mean of: from `window` to a third of them."""
    return [window, *(span for span in SPANS if window < span <= count // 3)]


def _scale(series: Series, peak: float) -> float:
    """What a gap is a share of: the peak above 0 for scores within 0 ... 1, above the least value otherwise."""
    low, high = float(series.values.min()), float(series.values.max())
    return peak - (0.0 if low >= 0 and high <= 1 else low)
