"""A score that rises and falls, and a reward that the held-out score no longer follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History, Series, Values
from entrostat.diagnose.remedies import DIVERGENCE, RISE_THEN_FALL
from entrostat.diagnose.statistics import Line, expected_maximum, fit_line, noise, rolling_mean
from entrostat.runs import Cliff, cliff_of


@dataclass(frozen=True, slots=True)
class Fall:
    """How far a score has come down from its peak.

    peak, now: means of `window` values. floor: the gap between the two that a score which never changes would show.
    excess: gap - floor - certain x error; positive where the fall is no noise. scale: what the gap is a share of.
    """

    peak: float
    peak_step: int
    now: float
    floor: float
    excess: float
    scale: float

    @property
    def gap(self) -> float:
        """How far it has come down."""
        return self.peak - self.now


def fall_from_peak(series: Series, window: int, certain: float, error: float | None = None) -> Fall:
    """The fall of a series of at least `window` values.

        m_t = mean of w values up to t,   peak = max m,   now = last m,   gap = peak - now,   w = max(window, n / 15)
        sigma = error of one value: that given or noise (1 + 2 / sqrt(n)), whichever is larger,   s = sigma / sqrt(w)
        floor = s E[max of n / w standard normals]                         the winner's curse of the peak

    The noise is the series' own, by its differences, at the upper end of what n values tell of it. w grows with the
    series, for what is looked at after every value shows a rare deviation sooner or later.

    scale: the peak above 0 for scores within 0 ... 1, above the least value otherwise.
    """
    steps, values = series
    window = averaged(len(values), window)
    means = rolling_mean(values, window)
    top = int(means.argmax())
    sigma = max(noise(values) * (1 + 2 / math.sqrt(len(values))), error or 0.0) / math.sqrt(window)
    floor = sigma * expected_maximum(len(values) / window)
    base = 0.0 if values.min() >= 0 and values.max() <= 1 else float(values.min())
    gap = float(means[top] - means[-1])
    return Fall(
        peak=float(means[top]),
        peak_step=int(steps[top + window - 1]),
        now=float(means[-1]),
        floor=floor,
        excess=gap - floor - certain * sigma,
        scale=float(means[top]) - base,
    )


def averaged(values: int, window: int) -> int:
    """How many of a series' values are averaged: `window`, or a fifteenth of a long series."""
    return max(window, values // 15)


@dataclass(frozen=True, kw_only=True)
class RiseThenFall(Detector):
    """A score that has fallen from its peak by more than its noise: the held-out score, or else the training reward.

        gap > floor + certain x s   and   gap > share x scale          as in `fall_from_peak`

    Critical once half of the peak is lost. Onset and phase score: `entrostat.runs.find_cliff` of the means.
    The window is 3 evaluations, and for the reward, which is noisier and logged more often, `reward_window`.
    Source: arXiv 2606.21090, sections on the metrics; the noise floor is ours.
    """

    kind: ClassVar = "rise-then-fall"
    columns: ClassVar = ("heldout", "reward")
    share: float = 0.2
    certain: float = 4.5
    """The score is looked at after every value: of 300 healthy logs 4 deviate by 3.5 errors at some time, 1 by 4.5."""
    window: int = 3
    reward_window: int = 5
    least: int = 6

    @override
    def find(self, history: History, end: int) -> Finding | None:
        return self._fallen(history, "heldout", self.window) or self._fallen(history, "reward", self.reward_window)

    def _fallen(self, history: History, name: str, window: int) -> Finding | None:
        series = history.series(name)
        if len(series) < max(2 * window, self.least):
            return None
        errors = history.series("heldout_error").values
        error = float(errors[-1]) if name == "heldout" and len(errors) else None
        fall = fall_from_peak(series, window, self.certain, error)
        if fall.excess <= 0 or fall.gap <= self.share * fall.scale:
            return None
        cliff = _cliff(series, averaged(len(series), window))
        return Finding(
            kind=self.kind,
            severity="critical" if fall.gap > 0.5 * fall.scale else "warning",
            step=history.step,
            onset=cliff.onset_largest if cliff else fall.peak_step,
            summary=(
                f"The {_spoken(name)} has fallen from {fall.peak:.3g} (step {fall.peak_step}) to {fall.now:.3g}; "
                f"noise explains {fall.floor:.2g} of that"
                + (f". The largest single drop is {cliff.phase_score:.0%} of the fall." if cliff else ".")
            ),
            evidence={
                "peak": fall.peak,
                "peak_step": fall.peak_step,
                "now": fall.now,
                "gap": fall.gap,
                "noise_floor": fall.floor,
                **({"phase_score": cliff.phase_score, "onset_half": cliff.onset_half} if cliff else {}),
            },
            columns=(name,),
            levels={"peak": fall.peak},
            remedies=RISE_THEN_FALL,
        )


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

    kind: ClassVar = "divergence"
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
        rewards = Series(reward.steps[reward.steps >= begin], reward.values[reward.steps >= begin])
        if len(rewards) < self.least:
            return None
        down, up = _trend(Series(heldout.steps[-size:], heldout.values[-size:])), _trend(rewards)
        fall, rise = -down.slope * length, up.slope * length
        scale, spread = float(rolling_mean(heldout.values, 3).max()), float(np.ptp(reward.values))
        if fall <= self.share * scale or rise <= self.gain * spread or up.slope_bounds(self.confidence)[0] <= 0:
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
