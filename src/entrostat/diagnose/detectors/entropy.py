"""Entropy that collapses, with the step at which it arrives, and entropy that explodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding, Remedy
from entrostat.diagnose.history import History, Series, Values
from entrostat.diagnose.remedies import COLLAPSE, COLLAPSE_BY_PUNISHMENT, EXPLOSION
from entrostat.diagnose.statistics import Line, fit_line, median, noise, rolling_median

TINY = 1e-9  # nats: below it an entropy is 0 in float32, and its logarithm says nothing

REGIONS = ("flow_E1", "flow_E2", "flow_E3", "flow_E4")


@dataclass(frozen=True, kw_only=True)
class EntropyCollapse(Detector):
    """Entropy that is at its floor, or will be there before the run ends.

        floor = floor_share x start                        start = median of the first `first` values
        ln H(t) = a + b t      over the last `window` values, at most `recent` of the series
        arrival = (ln floor - a) / b,   its interval by the interval of b around the window's centre

    A finding of severity critical: the median of the last 3 values is at or below the floor. A warning: `spent` of the
    start is gone, and the latest arrival that the interval of the whole window allows and the arrival that its second
    half alone gives both fall before the end, and no farther ahead than `reach` times as long as the fall has lasted.
    A fall that is levelling off passes the first and fails the second; the steep first steps of a healthy run fail the
    third.
    Source of entropy as what a run spends, steadily and in exchange for reward: arXiv 2505.22617.
    """

    kind: ClassVar = "entropy-collapse"
    columns: ClassVar = ("entropy",)
    confirm: int = 2
    floor_share: float = 0.05
    """Completions of a prompt are nearly all alike there; healthy runs of ours end at a tenth or more."""
    spent: float = 0.5
    """Every run loses some: no forecast before half is gone."""
    first: int = 5
    window: int = 8
    recent: float = 0.15
    """A longer window holds values from before the fall, and says later: benchmarks/diagnose has what that costs."""
    confidence: float = 0.95
    reach: float = 2.0
    """A course is trusted for twice as long as it has been seen, no longer."""

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("entropy")
        if len(series) < self.first + 3:
            return None
        start = median(series.values[: self.first])
        floor = self.floor_share * start
        now = median(series.values[-3:])
        if start <= TINY:
            return None
        if now <= floor:
            return self._arrived(history, series, start, floor, now)
        return self._forecast(history, series, start, floor, now, end)

    def _arrived(self, history: History, series: Series, start: float, floor: float, now: float) -> Finding:
        smooth = rolling_median(series.values, 3)
        onset = int(series.steps[_last_above(smooth, 0.8 * start) + 2])
        return Finding(
            kind=self.kind,
            severity="critical",
            step=history.step,
            onset=onset,
            summary=f"Entropy has collapsed: {now:.3g} nats a token, {now / start:.0%} of its start.{_blame(history)}",
            evidence={"start": start, "now": now, "floor": floor, **_contraction(history)},
            columns=self.columns,
            levels={"start": start, "floor": floor},
            remedies=_remedies(history),
        )

    def _forecast(
        self, history: History, series: Series, start: float, floor: float, now: float, end: int
    ) -> Finding | None:
        if len(series) < self.window or now > (1 - self.spent) * start:
            return None
        size = max(self.window, round(self.recent * len(series)))
        steps, values = series.steps[-size:].astype(float), np.log(np.maximum(series.values[-size:], TINY))
        whole, late = fit_line(steps, values), fit_line(steps[len(steps) // 2 :], values[len(values) // 2 :])
        soonest, latest = _arrival_bounds(whole, steps, math.log(floor), self.confidence)
        onset = int(series.steps[_last_above(rolling_median(series.values, 3), 0.8 * start) + 2])
        farthest = min(end, history.step + self.reach * (history.step - onset))
        latest = max(latest, _arrival(late, math.log(floor)))
        if latest > farthest:
            return None
        arrival = _arrival(whole, math.log(floor))
        return Finding(
            kind=self.kind,
            severity="warning",
            step=history.step,
            onset=onset,
            summary=(
                f"Entropy falls by {1 - math.exp(whole.slope):.1%} a step and reaches {self.floor_share:.0%} of its "
                f"start at step {arrival:.0f} [{soonest:.0f}, {latest:.0f}], before the end at {end}.{_blame(history)}"
            ),
            evidence={
                "start": start,
                "now": now,
                "floor": floor,
                "slope": whole.slope,
                "slope_error": whole.error,
                "arrival": arrival,
                "arrival_soonest": soonest,
                "arrival_latest": latest,
                "end": end,
                **_contraction(history),
            },
            columns=self.columns,
            levels={"start": start, "floor": floor},
            remedies=_remedies(history),
        )


@dataclass(frozen=True, kw_only=True)
class EntropyExplosion(Detector):
    """Entropy that has risen far above where it has been.

        now > factor x low   and   now > over_start x start   and   now - low > certain x noise
        low = least median of 5 consecutive values before, now = median of the last 3

    A healthy run that is meant to explore (clip-higher, the first half of ID) rises by half or doubles; noise is the
    series' own. Critical from `worse` x low on. Source: runs of the demo after their cliff.
    """

    kind: ClassVar = "entropy-explosion"
    columns: ClassVar = ("entropy",)
    factor: float = 2.5
    over_start: float = 1.5
    worse: float = 5.0
    certain: float = 6.0
    first: int = 5

    @override
    def find(self, history: History, end: int) -> Finding | None:
        steps, values = history.series("entropy")
        if len(values) < self.first + 5:
            return None
        start, now = median(values[: self.first]), median(values[-3:])
        if now <= self.over_start * start:
            return None
        low = float(rolling_median(values[:-3], 5).min())
        if now <= max(self.factor * low, self.over_start * start) or now - low <= self.certain * noise(values):
            return None
        risen = rolling_median(values, 3) > low + 0.2 * (now - low)
        onset = int(steps[len(risen) - 1 - int(np.argmin(risen[::-1])) + 2]) if not risen.all() else int(steps[0])
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.worse * low else "warning",
            step=history.step,
            onset=onset,
            summary=f"Entropy has risen to {now:.3g} nats a token, {now / max(low, TINY):.1f} times its lowest.",
            evidence={"start": start, "low": low, "now": now},
            columns=self.columns,
            levels={"start": start, "lowest": low},
            remedies=EXPLOSION,
        )


def _last_above(smooth: Values, level: float) -> int:
    """Index of the last value above `level`: where the fall that has not been undone begins; 0 for none."""
    above = np.flatnonzero(smooth > level)
    return int(above[-1]) if len(above) else 0


def _arrival(line: Line, level: float) -> float:
    return (level - line.intercept) / line.slope if line.slope < 0 else math.inf


def _arrival_bounds(line: Line, steps: Values, level: float, confidence: float) -> tuple[float, float]:
    """Soonest and latest arrival: the line turned about its centre to the two bounds of its slope."""
    centre = float(steps.mean())
    height = line.at(centre) - level
    bounds = line.slope_bounds(confidence)
    soonest, latest = (centre - height / slope if slope < 0 else math.inf for slope in bounds)
    return soonest, latest


def _contraction(history: History) -> dict[str, float]:
    """Each region's share of the contracting entropy flow over the last 10 steps; empty where flow was not logged."""
    flows = {name: history.series(name).values[-10:] for name in REGIONS}
    down = {name: float(np.maximum(-values, 0.0).sum()) for name, values in flows.items() if len(values)}
    total = sum(down.values())
    return {f"share_of_contraction_{name[5:]}": part / total for name, part in down.items()} if total > 0 else {}


def _remedies(history: History) -> tuple[Remedy, ...]:
    shares = _contraction(history)
    punished = shares.get("share_of_contraction_E4", 0.0) > shares.get("share_of_contraction_E1", 0.0)
    return COLLAPSE_BY_PUNISHMENT if punished else COLLAPSE


def _blame(history: History) -> str:
    """The region that carries most of the contraction, in words; empty where flow was not logged."""
    shares = _contraction(history)
    if not shares:
        return ""
    worst = max(shares, key=lambda name: shares[name])
    return f" {worst[-2:]} carries {shares[worst]:.0%} of the contraction."
