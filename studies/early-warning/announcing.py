"""How well a signal announces a fall: AUC over steps with intervals over runs, and alarms at a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

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


def pairs(courses: Sequence[Course], signal: str, label: str, match: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a positive step of run i and a negative one of run j, as two matrices (runs, runs).

    The first counts those in which the positive step has the larger signal, ties half; the second all of them. match:
    only pairs of steps at most so far apart in their runs.
    """
    values = np.concatenate([course.watch(signal) for course in courses])
    labels = np.concatenate([getattr(course, label) for course in courses])
    steps = np.concatenate([course.watched for course in courses])
    runs = np.repeat(np.arange(len(courses)), [len(course.watched) for course in courses])
    member = runs[:, None] == np.arange(len(courses))
    wins = (np.sign(values[labels][:, None] - values[~labels]) + 1) / 2
    near = (
        np.ones_like(wins) if match is None else (abs(steps[labels][:, None] - steps[~labels]) <= match).astype(float)
    )
    first, second = member[labels].astype(float), member[~labels].astype(float)
    return first.T @ (wins * near) @ second, first.T @ near @ second


def auc_of(courses: Sequence[Course], signal: str, label: str, match: int | None = None) -> float:
    """Probability that a positive step has the larger signal than a negative one; nan where there is no such pair."""
    wins, whole = pairs(courses, signal, label, match)
    return float(wins.sum() / whole.sum()) if whole.sum() else float("nan")


def interval(
    courses: Sequence[Course], signal: str, label: str, match: int | None = None, resamples: int = 400
) -> tuple[float, float, float]:
    """The AUC with its 95 % bootstrap-t interval over resampled runs (Efron and Tibshirani 1993, section 12.5).

    On the scale z = arcsin sqrt AUC, whose spread hardly depends on the AUC: with s the jackknife's standard error over
    runs, and s* that of a resample, [z - q_.975 s, z - q_.025 s] with the quantiles of (z* - z) / s* over resamples.
    """
    wins, whole = pairs(courses, signal, label, match)
    generator = np.random.default_rng(0)
    n = len(courses)
    times = np.array([np.bincount(generator.integers(n, size=n), minlength=n) for _ in range(resamples)], dtype=float)
    (own,), (error,) = _scaled(wins, whole, np.ones((1, n)))
    drawn, errors = _scaled(wins, whole, times)
    sure = errors > 0
    below, above = np.quantile((drawn[sure] - own) / errors[sure], [0.025, 0.975])
    low, high = np.sin(np.clip([own - above * error, own - below * error], 0, np.pi / 2)) ** 2
    return float(wins.sum() / whole.sum()), float(low), float(high)


def _scaled(wins: np.ndarray, whole: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """arcsin sqrt AUC of each resample (R, runs), in which run i counts times[:, i], and its jackknife standard error.

    Without one copy of run i a resample t has (t - e_i)' C (t - e_i) of each count C. 0 for a resample without a pair.
    """
    won, all_of = ((times @ counts * times).sum(1) for counts in (wins, whole))
    less_won, less_all = (
        total[:, None] - times @ (counts + counts.T) + np.diag(counts)
        for total, counts in ((won, wins), (all_of, whole))
    )
    value = np.arcsin(np.sqrt(np.divide(won, all_of, out=np.full_like(won, 0.5), where=all_of > 0).clip(0, 1)))
    share = np.divide(less_won, less_all, out=np.full_like(less_won, 0.5), where=less_all > 0).clip(0, 1)
    left_out = np.arcsin(np.sqrt(share))
    n = times.sum(1, keepdims=True)
    mean = (times * left_out).sum(1, keepdims=True) / n
    error = np.sqrt(((n - 1) / n * times * (left_out - mean) ** 2).sum(1))
    return value, np.where(all_of > 0, error, 0.0)


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
