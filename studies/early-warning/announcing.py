"""How well a signal announces a fall: AUC over steps with intervals over runs, and alarms at a threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import rankdata

DROP, SOON, SAFE = 0.2, 3, 10
FALSE_ALARMS = 0.05
MATCH = 2


@dataclass(frozen=True)
class Course:
    """One run: pass@1 on the report split after step 0, 1, ..., and the signals of steps 1, 2, ..."""

    condition: str
    seed: int
    pass_at_1: np.ndarray
    signals: dict[str, np.ndarray]

    @cached_property
    def fall(self) -> int | None:
        """The first step whose pass@1 lies more than DROP below an earlier one's; None if there is none."""
        below = self.pass_at_1 < np.maximum.accumulate(self.pass_at_1) - DROP
        return int(below.argmax()) if below.any() else None

    @cached_property
    def watched(self) -> np.ndarray:
        """The steps 1, 2, ... before the fall whose next SOON steps were seen."""
        last = (
            len(self.pass_at_1) - 1 - SOON if self.fall is None else min(self.fall - 1, len(self.pass_at_1) - 1 - SOON)
        )
        return np.arange(1, last + 1)

    @cached_property
    def dropping(self) -> np.ndarray:
        """For each watched step, whether pass@1 drops by more than DROP within the next SOON steps."""
        p = self.pass_at_1
        return np.array([p[t] - p[t + 1 : t + 1 + SOON].min() > DROP for t in self.watched], dtype=bool)

    @cached_property
    def falling(self) -> np.ndarray:
        """For each watched step, whether the fall comes within the next SOON steps."""
        return np.array([self.fall is not None and self.fall - t <= SOON for t in self.watched], dtype=bool)

    @cached_property
    def safe(self) -> np.ndarray:
        """For each watched step, whether no fall comes within the next SAFE steps."""
        return np.array([self.fall is None or self.fall - t > SAFE for t in self.watched], dtype=bool)

    def watch(self, signal: str) -> np.ndarray:
        """The signal at the watched steps."""
        return self.signals[signal][self.watched - 1]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive step has the larger signal than a negative one, ties half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_of(courses: list[Course], signal: str, label: str) -> float:
    """AUC over the watched steps of all runs; nan where a class is empty."""
    values = np.concatenate([course.watch(signal) for course in courses])
    labels = np.concatenate([getattr(course, label) for course in courses])
    return auc(values[labels], values[~labels]) if labels.any() and not labels.all() else float("nan")


def auc_matched(courses: list[Course], signal: str, label: str) -> float:
    """AUC over pairs of steps at most MATCH steps apart in their runs: what remains when both are equally far along."""
    values = np.concatenate([course.watch(signal) for course in courses])
    labels = np.concatenate([getattr(course, label) for course in courses])
    steps = np.concatenate([course.watched for course in courses])
    near = abs(steps[labels][:, None] - steps[~labels]) <= MATCH
    higher = np.sign(values[labels][:, None] - values[~labels])[near]
    return float((higher.mean() + 1) / 2) if higher.size else float("nan")


def interval(
    measure: Callable[[list[Course], str, str], float],
    courses: list[Course],
    signal: str,
    label: str,
    resamples: int = 400,
) -> tuple[float, float, float]:
    """A measure with its 95 % percentile interval over resampled runs."""
    generator = np.random.default_rng(0)
    drawn = [
        measure([courses[i] for i in generator.integers(len(courses), size=len(courses))], signal, label)
        for _ in range(resamples)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return measure(courses, signal, label), float(low), float(high)


def threshold(courses: list[Course], signal: str, rate: float = FALSE_ALARMS) -> float:
    """The lowest value that at most `rate` of the safe steps exceed."""
    safe = np.concatenate([course.watch(signal)[course.safe] for course in courses])
    return float(np.quantile(safe, 1 - rate, method="higher"))


@dataclass(frozen=True)
class Alarms:
    """What a threshold does on runs: falls announced in time, their lead, and alarms at safe steps."""

    falls: int
    caught: int
    leads: tuple[int, ...]
    false_alarms: int
    safe_steps: int
    false_runs: int
    """Runs without a fall that it would have stopped."""
    sound_runs: int

    def __add__(self, other: Alarms) -> Alarms:
        return Alarms(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


def alarms(courses: list[Course], limits: Mapping[str, float]) -> Alarms:
    """Alarms where any signal exceeds its limit; a fall is caught by an alarm 1 to SAFE steps before it."""
    total = Alarms(0, 0, (), 0, 0, 0, 0)
    for course in courses:
        rings = np.any([course.signals[signal] > limit for signal, limit in limits.items()], axis=0)
        watched = rings[course.watched - 1]
        leads: tuple[int, ...] = ()
        if course.fall is not None:
            steps = np.arange(1, course.fall)
            timely = steps[rings[: course.fall - 1] & (course.fall - steps <= SAFE)]
            leads = (int(course.fall - timely[0]),) if len(timely) else ()
        total += Alarms(
            falls=int(course.fall is not None),
            caught=len(leads),
            leads=leads,
            false_alarms=int((watched & course.safe).sum()),
            safe_steps=int(course.safe.sum()),
            false_runs=int(course.fall is None and watched.any()),
            sound_runs=int(course.fall is None),
        )
    return total


def transferred(courses: list[Course], signals: Sequence[str], rate: float = FALSE_ALARMS) -> Alarms:
    """Alarms on the runs of each condition at limits set on the runs of all other conditions.

    rate: the share of safe steps there that may alarm; several signals share it among them.
    """
    total = Alarms(0, 0, (), 0, 0, 0, 0)
    for condition in sorted({course.condition for course in courses}):
        others = [course for course in courses if course.condition != condition]
        own = [course for course in courses if course.condition == condition]
        total += alarms(own, {signal: threshold(others, signal, rate / len(signals)) for signal in signals})
    return total


def stopped(courses: list[Course], signals: Sequence[str], rate: float = 0.0) -> list[tuple[Course, int]]:
    """Each run with the step at which the rule stops it, the last one where it never alarms; limits as `transferred`.

    Nothing but the signals up to that step decides.
    """
    found = []
    for course in courses:
        others = [other for other in courses if other.condition != course.condition]
        rings = np.any([course.signals[s] > threshold(others, s, rate / len(signals)) for s in signals], axis=0)
        found.append((course, int(rings.argmax()) + 1 if rings.any() else len(rings)))
    return found
