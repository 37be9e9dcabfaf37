"""A score that rises and falls, and a reward that the held-out score no longer follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History, Series, Values
from entrostat.diagnosis.remedies import DIVERGENCE, RISE_THEN_FALL
from entrostat.diagnosis.score import score_change
from entrostat.diagnosis.statistics import (
    LOCAL,
    Line,
    began,
    correlated,
    expected_maximum,
    fit_line,
    lasting,
    once_each,
    rolling_mean,
    roughness,
    student,
)
from entrostat.runs import Cliff, cliff_of
from entrostat.runs.finding import Finding

SPANS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
"""So many last values are averaged: a deep fall shows in few, a slight one in many."""
BEFORE, WHOLE = 24, 80  # values that tell how long noise lasts: of those up to the peak, and of a whole series
MOVED = 4.0
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
    found = [
        (_ratio(float(excess[i, j]), float(error[i, j])), int(i), int(j)) for i, j in zip(*seen.nonzero(), strict=True)
    ]
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


@detector("rise-then-fall")
@dataclass(frozen=True, kw_only=True)
class RiseThenFall(Detector):
    """A score that has fallen from its peak by more than its noise: the held-out score, or else the training reward.

        drop > floor + needed x error   and   gap > share x scale          as in `fall_from_peak`

    or a fall of the reward that is less certain by itself, while the length or the share of cut completions, which had
    changed as the reward rose, goes back: together they have to be as certain.

    The noise of a reward often lasts from step to step, for tasks of like difficulty follow one another: its errors are
    those of white noise times `lasting` or `correlated`. A batch that is used for several updates has one reward, which
    counts once.

    Critical once half of the peak is lost. A reward that falls while the held-out score does not is none: the training
    tasks have become harder. Phase score: `entrostat.runs.find_cliff` of the means.
    The window is 3 evaluations, and for the reward, which is noisier and logged more often, `reward_window`.
    Source: arXiv 2606.21090, sections on the metrics; the noise floor is ours.
    """

    columns: ClassVar = ("heldout", "reward")
    share: float = 0.2
    chance: float = 0.05
    design: float = 4.0
    """For a reward, whose tasks differ from batch to batch. Evaluations are of the same tasks every time: 1."""
    prior: float = 8.0
    """As many degrees of freedom has the noise that the size of a batch lets expect."""
    window: int = 3
    reward_window: int = 5
    least: int = 6
    confirm: int = 2
    certain: float = 1.3
    lasts: float = 0.08
    """A fall of the reward alone is a suspicion until it is `certain` times as sure as needed, or has shown at four
    looks in a row and for this part of the run: tasks of like difficulty that follow one another make short ones."""

    @override
    def find(self, history: History, end: int) -> Finding | None:
        return self._fallen(history, "heldout", self.window) or self._fallen(history, "reward", self.reward_window)

    @override
    def believed(self, finding: Finding, since: int, looks: int) -> bool:
        """A fall of the held-out score, or with the return of what had changed as the reward rose, needs no more."""
        evidence = finding.evidence
        alone = finding.columns == ("reward",) and not evidence["goes_back"]
        lasts = looks >= 4 and finding.step - since >= self.lasts * finding.step
        return not alone or lasts or evidence["certainty"] >= self.certain

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """Until half of the fall is certainly made good: by a mean that is two of its errors above it."""
        now = history.series(finding.columns[0]).values[-self.reward_window :]
        unsure = LEAST_ERRORS * roughness(now) / math.sqrt(len(now))
        return float(now.mean()) - unsure < finding.evidence["peak"] - finding.evidence["gap"] / 2

    def _fallen(self, history: History, name: str, window: int) -> Finding | None:
        whole = history.series(name)
        series = once_each(whole)
        window = max(2, math.ceil(window * len(series) / len(whole))) if len(whole) else window
        if len(series) < max(window + 2, self.least):
            return None
        errors = history.series("heldout_error").values
        error = (float(errors[-1]) if len(errors) else 0.0) if name == "heldout" else None
        design = 1.0 if name == "heldout" else self.design
        fall = fall_from_peak(series, window, self.share, self.chance, design, self.prior, error)
        if fall is None:
            return None
        last = max(min(window, fall.span), fall.span // 3)
        if float(series.values[-last:].mean()) > fall.peak - fall.gap / 2:
            return None  # it has come back since
        certainty = fall.errors / fall.needed
        goes_back = certainty <= 1 and name == "reward" and self._goes_back(history, fall)
        if certainty <= 1 and not goes_back:
            return None
        if name == "reward" and self._heldout_holds(history, fall.peak_step):
            return None
        cliff = _cliff(series, fall.width)
        return Finding(
            kind=self.kind,
            severity="critical" if fall.gap > 0.5 * fall.scale else "warning",
            step=history.step,
            onset=max(began(series, fall.peak - 0.3 * fall.gap, upwards=False), fall.peak_step),
            summary=(
                f"The {_spoken(name)} has fallen from {fall.peak:.3g} (step {fall.peak_step}) to {fall.now:.3g}; "
                f"noise explains {fall.noise:.2g} of that"
                + (f". The largest single drop is {cliff.phase_score:.0%} of the fall." if cliff else ".")
            ),
            evidence={
                "peak": fall.peak,
                "peak_step": fall.peak_step,
                "now": fall.now,
                "gap": fall.gap,
                "noise_floor": fall.noise,
                "certainty": certainty,
                "goes_back": float(goes_back),
                **({"phase_score": cliff.phase_score} if cliff else {}),
            },
            columns=(name,),
            levels={"peak": fall.peak},
            remedies=RISE_THEN_FALL,
        )

    def _goes_back(self, history: History, fall: Fall) -> bool:
        """Whether what had changed while the reward rose goes back with it, so that together they are certain.

        (errors of the fall + errors of the return) / sqrt(2) > needed,   each above two
        """
        back = max(_return(history.series(name), fall) for name in ("length", "truncated"))
        return back > LEAST_ERRORS and (fall.errors + back) / math.sqrt(2) > fall.needed

    def _heldout_holds(self, history: History, peak_step: int) -> bool:
        change = score_change("heldout", history.series("heldout"), peak_step)
        return change is not None and change.z > -2


@detector("divergence")
@dataclass(frozen=True, kw_only=True)
class Divergence(Detector):
    """A training reward that goes on rising while the held-out score falls.

    Over the last 40 % of the run, or else 65 %, at least `least` evaluations, each of the two has a line fitted:
        reward    lower bound of its slope > 0,   rise along the line > gain x its range
        held-out  fall along the line > share x scale,   upper bound of its slope < follow x the reward's slope
    scale: the highest mean of 3 held-out scores. The last condition says that the held-out score certainly does not
    follow; of noisy evaluations it asks less than a slope that is certainly below 0. For a reward on another scale than
    the held-out score it is brought to that scale by their ranges.

    The policy learns what the reward pays and the held-out tasks do not: a flaw in the grader, or the training tasks by
    heart. A gap between the two that only stays, or widens while both rise, is the usual one and no finding.
    """

    columns: ClassVar = ("heldout",)
    recent: tuple[float, ...] = (0.4, 0.65)
    gain: float = 0.2
    share: float = 0.08
    follow: float = 0.2
    confidence: float = 0.95
    least: int = 7

    @override
    def find(self, history: History, end: int) -> Finding | None:
        return next((found for part in self.recent if (found := self._parted(history, part))), None)

    def _parted(self, history: History, part: float) -> Finding | None:
        heldout, reward = history.series("heldout"), history.series("reward")
        size = max(self.least, round(part * len(heldout)))
        if len(heldout) < size + 2:
            return None
        begin, length = int(heldout.steps[-size]), float(heldout.steps[-1] - heldout.steps[-size])
        down = _trend(Series(heldout.steps[-size:], heldout.values[-size:]))
        fall, scale = -down.slope * length, float(rolling_mean(heldout.values, 3).max())
        start = int(reward.steps.searchsorted(begin))
        if fall <= self.share * scale or len(reward) - start < self.least:
            return None
        up = _trend(Series(reward.steps[start:], reward.values[start:]))
        rise, spread = up.slope * length, float(np.ptp(reward.values))
        if rise <= self.gain * spread or up.slope_bounds(self.confidence)[0] <= 0:
            return None
        same_scale = reward.values.min() >= 0 and reward.values.max() <= 1
        follow = self.follow * (1.0 if same_scale else float(np.ptp(heldout.values)) / spread)
        if down.slope_bounds(self.confidence)[1] >= follow * up.slope:
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if fall > 0.3 * scale else "warning",
            step=history.step,
            onset=begin,
            summary=(
                f"Since step {begin} the training reward rose by {rise:.3g} and the held-out score fell by {fall:.3g}."
            ),
            evidence={
                "heldout_slope": down.slope,
                "heldout_slope_error": down.error,
                "reward_slope": up.slope,
                "reward_slope_error": up.error,
                "heldout_fall": fall,
                "reward_rise": rise,
            },
            columns=("heldout", "reward"),
            remedies=DIVERGENCE,
        )


def _return(series: Series, fall: Fall) -> float:
    """How certainly, in standard errors, a quantity goes back to where it was before the score rose; 0 if it does not.

    It has to have moved by `MOVED` errors from the first eighth of the values to the peak, and to have lost a third of
    that since.
    """
    steps, values = series
    if len(values) < 24:
        return 0.0
    top = int(steps.searchsorted(fall.peak_step, "right"))
    start, peak, now = values[: max(8, top // 8)], values[max(top - fall.width, 0) : top], values[-fall.span :]
    if top >= len(values) - fall.span + 1 or len(peak) < 3 or top - fall.width < len(start):
        return 0.0
    sigma = max(roughness(values), 1e-12)
    moved, back = float(peak.mean() - start.mean()), float(peak.mean() - now.mean())
    unsure = sigma * math.sqrt(1 / len(peak) + 1 / len(now))
    if abs(moved) < MOVED * sigma * math.sqrt(1 / len(peak) + 1 / len(start)) or back / moved < 1 / 3:
        return 0.0
    floor = sigma / math.sqrt(len(peak)) * expected_maximum(len(values) / len(peak))
    return max(abs(back) - floor, 0.0) / unsure


def _trend(series: Series) -> Line:
    return fit_line(series.steps.astype(float), series.values)


def _cliff(series: Series, window: int) -> Cliff | None:
    """The cliff of the means, on 0 ... 1: onset and phase score do not depend on the scale."""
    means = rolling_mean(series.values, window)
    steps = series.steps[window - 1 :]
    return cliff_of(steps, _unit(means))


def _unit(values: Values) -> Values:
    low, high = float(values.min()), float(values.max())
    return np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(values)


def _spoken(name: str) -> str:
    return "held-out score" if name == "heldout" else "training reward"
