"""Entropy that collapses, with the step at which it arrives, and entropy that explodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History, Series, Values
from entrostat.diagnosis.remedies import COLLAPSE, COLLAPSE_BY_PUNISHMENT, EXPLOSION
from entrostat.diagnosis.score import change_since
from entrostat.diagnosis.statistics import Line, began, fit_line, median, noise, rolling_median
from entrostat.runs.finding import Finding, Remedy

TINY = 1e-9  # nats: below it an entropy is 0 in float32, and its logarithm says nothing

REGIONS = ("flow_E1", "flow_E2", "flow_E3", "flow_E4")


@detector("entropy-collapse")
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
    third. Below `low_share` of the start it is a warning too where the score has not risen since half of the fall. An
    entropy below `none` nats from the first step on is a warning as well: there is nothing to explore with.
    No finding where the log has the entropy that was asked for, and it is followed within `followed` of it.
    Source of entropy as what a run spends, steadily and in exchange for reward: arXiv 2505.22617.
    """

    columns: ClassVar = ("entropy",)
    confirm: int = 2
    none: float = 0.005
    followed: float = 0.25
    floor_share: float = 0.05
    """Completions of a prompt are nearly all alike there; healthy runs of ours end at a tenth or more."""
    spent: float = 0.5
    """Every run loses some: no forecast before half is gone."""
    low_share: float = 0.1
    """Below it: a warning where the mean score is no better than before half of the fall, on a scale of logarithms."""
    first: int = 5
    window: int = 8
    recent: float = 0.15
    """A longer window holds values from before the fall, and says later."""
    confidence: float = 0.95
    reach: float = 2.0
    """A course is trusted for twice as long as it has been seen, no longer."""
    stood: float = 0.5

    @override
    def believed(self, finding: Finding, since: int, looks: int) -> bool:
        """A forecast is a suspicion until it has stood for `stood` times as long as it looks ahead: falls level off."""
        return self.stood * (finding.evidence.get("arrival", 0.0) - finding.step) <= finding.step - since

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("entropy")
        if len(series) < self.first + 3:
            return None
        start = median(series.values[: self.first])
        floor = self.floor_share * start
        now = median(series.values[-3:])
        if max(start, now) < self.none:
            return self._never_any(history, series)
        if now > (1 - self.spent) * start or self._as_chosen(history):
            return None
        if now <= floor:
            return self._arrived(history, series, start, floor, now)
        return self._forecast(history, series, start, floor, now, end) or self._low(history, series, start, floor, now)

    def _low(self, history: History, series: Series, start: float, floor: float, now: float) -> Finding | None:
        """Nearly at the floor, and the score no better for it since half of that fall was behind it."""
        if now > self.low_share * start:
            return None
        onset = began(series, math.sqrt(start * now), upwards=False)
        change = change_since(history, onset)
        if change is None or change.now > change.before:
            return None
        return Finding(
            kind=self.kind,
            severity="warning",
            step=history.step,
            onset=onset,
            summary=(
                f"Entropy has fallen to {now:.3g} nats per token, {now / start:.0%} of its start, and the score has "
                f"not risen since step {onset}.{_blame(history)}"
            ),
            evidence={"start": start, "now": now, "floor": floor, **_contraction(history)},
            columns=self.columns,
            levels={"start": start, "floor": floor},
            remedies=_remedies(history),
        )

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """A collapse lasts until the entropy has doubled from its floor; a forecast has no such claim."""
        floor = finding.evidence.get("floor", 0.0)
        return finding.severity == "critical" and median(history.series("entropy").values[-3:]) <= 2 * floor

    def _as_chosen(self, history: History) -> bool:
        """Whether the entropy of the last steps is the one that a controller was to hold."""
        chosen, entropy = history.series("entropy_target").values[-8:], history.series("entropy").values[-8:]
        if len(chosen) < len(entropy) or not (chosen > TINY).all():
            return False
        return median(np.abs(entropy / chosen - 1)) < self.followed

    def _never_any(self, history: History, series: Series) -> Finding | None:
        if series.values.max() >= self.none:
            return None
        zero = not series.values.any()
        return Finding(
            kind=self.kind,
            severity="note" if zero else "warning",
            step=history.step,
            onset=int(series.steps[0]),
            summary=(
                "The entropy is logged as exactly 0 at every step: it was not computed, or sampling is greedy."
                if zero
                else f"The entropy is below {self.none} nats per token from the first step on: completions of a prompt "
                "are all alike, and there is nothing to choose from."
            ),
            evidence={"greatest": float(series.values.max())},
            columns=self.columns,
            remedies=COLLAPSE,
        )

    def _arrived(self, history: History, series: Series, start: float, floor: float, now: float) -> Finding:
        onset = began(series, 0.8 * start, upwards=False)
        return Finding(
            kind=self.kind,
            severity="critical",
            step=history.step,
            onset=onset,
            summary=f"Entropy has collapsed to {now:.3g} nats per token, {now / start:.0%} of its start."
            + _blame(history),
            evidence={"start": start, "now": now, "floor": floor, **_contraction(history)},
            columns=self.columns,
            levels={"start": start, "floor": floor},
            remedies=_remedies(history),
        )

    def _forecast(
        self, history: History, series: Series, start: float, floor: float, now: float, end: int
    ) -> Finding | None:
        if len(series) < self.window:
            return None
        size = max(self.window, round(self.recent * len(series)))
        steps, values = series.steps[-size:].astype(float), np.log(np.maximum(series.values[-size:], TINY))
        whole, late = fit_line(steps, values), fit_line(steps[len(steps) // 2 :], values[len(values) // 2 :])
        soonest, latest = _arrival_bounds(whole, steps, math.log(floor), self.confidence)
        onset = began(series, 0.8 * start, upwards=False)
        farthest = min(end, history.step + self.reach * (history.step - onset))
        latest = max(latest, _arrival(late, math.log(floor)))
        arrival = _arrival(whole, math.log(floor))
        if latest > farthest or arrival <= history.step:  # too far to be believed, or past and not come true
            return None
        return Finding(
            kind=self.kind,
            severity="warning",
            step=history.step,
            onset=onset,
            summary=(
                f"Entropy falls by {1 - math.exp(whole.slope):.1%} per step and reaches {self.floor_share:.0%} of its "
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


@detector("entropy-explosion")
@dataclass(frozen=True, kw_only=True)
class EntropyExplosion(Detector):
    """Entropy that has risen far above where it has been, and no score to show for it.

        now > factor x low   and   now > over_start x start   and   now - low > certain x noise
        low = least median of 5 consecutive values before, now = median of the last 3

    What the score did since decides: where it has risen, the policy explores, and there is no finding. Where it has
    fallen, or the log has none, it is a warning, critical from `worse` x low on. Where it is level, there is a finding
    from `worse` x low on, a warning: a policy that is meant to explore may well triple a low entropy. Source: runs of
    the demo after their cliff; public runs that doubled and tripled their entropy without harm.
    """

    columns: ClassVar = ("entropy",)
    factor: float = 2.5
    over_start: float = 1.5
    worse: float = 5.0
    certain: float = 6.0
    first: int = 5

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("entropy")
        values = series.values
        if len(values) < self.first + 5:
            return None
        start, now = median(values[: self.first]), median(values[-3:])
        if now <= self.over_start * start:
            return None
        low = float(rolling_median(values[:-3], 5).min())
        if now <= self.factor * low or now - low <= self.certain * noise(values):
            return None
        onset = began(series, low + 0.2 * (now - low), upwards=True)
        change = change_since(history, onset)
        far = now > self.worse * low
        if change is not None and (change.risen or not (change.fallen or far)):
            return None
        fallen = change is not None and change.fallen
        times = f"{now / low:.1f} times its lowest" if low > TINY else "from none"
        return Finding(
            kind=self.kind,
            severity="critical" if far and (change is None or fallen) else "warning",
            step=history.step,
            onset=onset,
            summary=f"Entropy has risen to {now:.3g} nats per token, {times}"
            + (", and the score has fallen since." if fallen else "."),
            evidence={"start": start, "low": low, "now": now},
            columns=self.columns,
            levels={"start": start, "lowest": low},
            remedies=EXPLOSION,
        )


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
