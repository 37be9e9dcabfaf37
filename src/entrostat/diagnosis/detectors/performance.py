"""A score that rises and falls, and a reward that the held-out score no longer follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.falls import LEAST_ERRORS, Fall, fall_from_peak
from entrostat.diagnosis.history import History, Series
from entrostat.diagnosis.remedies import DIVERGENCE, RISE_THEN_FALL
from entrostat.diagnosis.score import score_change
from entrostat.diagnosis.statistics import (
    Line,
    began,
    expected_maximum,
    fit_line,
    once_each,
    rolling_mean,
    roughness,
)
from entrostat.runs import Cliff, cliff_of
from entrostat.runs.finding import Finding

MOVED = 4.0  # errors that a quantity must have moved by, for its return to count


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
    """The cliff of the means, whose phase score does not depend on the scale."""
    return cliff_of(series.steps[window - 1 :], rolling_mean(series.values, window))


def _spoken(name: str) -> str:
    return "held-out score" if name == "heldout" else "training reward"
