"""Groups that teach nothing, because all their completions earn the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History, Series, Values
from entrostat.diagnosis.remedies import ALL_RIGHT, ALL_WRONG
from entrostat.diagnosis.statistics import began, median
from entrostat.runs.finding import Finding, Severity

SAME = 1e-9  # a spread of rewards below it is none


@detector("degenerate-groups")
@dataclass(frozen=True, kw_only=True)
class DegenerateGroups(Detector):
    """Groups whose completions are all right or all wrong, so that every advantage in them is 0.

        mean over the last `window` values of the share of equal groups > limit

    The share is logged, or all_right + all_wrong, or else the share of the steps whose rewards had no spread at all.
    From it and the mean reward r, put on 0 ... 1 by the least and the greatest reward seen, the two kinds are told
    apart by their bounds: all_right lies in [r - (1 - z), r], its middle is reported.
    A third to a half is usual with groups of 8 (arXiv 2503.14476, section 3.2, which filters them out); at `limit` five
    of six samples are wasted. Critical from `worse` on where most are wrong. Where most are right the tasks are
    learned: a warning from `worse` on, a note below.
    """

    columns: ClassVar = ("all_right", "all_wrong", "equal_groups", "reward_std")
    limit: float = 0.85
    worse: float = 0.95
    window: int = 10
    fewest: int = 4
    windows: tuple[int, ...] = (5, 10, 20)
    chance: float = 0.01
    first: int = 9
    longest: int = 24
    confirm: int = 2

    @override
    def find(self, history: History, end: int) -> Finding | None:
        columns, series = self._share(history)
        found = self._steps_alike(history, series) if columns == ("reward_std",) else self._groups_alike(series)
        if found is None:
            return None
        now, high = found
        right, wrong = self._told_apart(history, columns, now)
        mostly_right = right > wrong
        severity: Severity = ("warning" if high else "note") if mostly_right else ("critical" if high else "warning")
        return Finding(
            kind=self.kind,
            severity=severity,
            step=history.step,
            onset=began(series, min(self.limit, 0.99), upwards=True),
            summary=(
                f"{now:.0%} of the {_counted(columns)} teach nothing, for all completions of a group earn the same: "
                f"{right:.0%} all right, {wrong:.0%} all wrong. "
                + (
                    "The tasks are too easy by now."
                    if mostly_right
                    else "The tasks are too hard, or the grader is wrong."
                )
            ),
            evidence={"all_right": right, "all_wrong": wrong},
            columns=columns,
            levels={"limit": self.limit} if columns == ("equal_groups",) else {},
            remedies=ALL_RIGHT if mostly_right else ALL_WRONG,
        )

    def _groups_alike(self, series: Series) -> tuple[float, bool] | None:
        """The share of equal groups lately, and whether that is nearly all; None where it is not high.

        Of a log that has a row every few steps, as many fewer rows are looked at, at least `fewest`.
        """
        every = median(np.diff(series.steps[: self.window])) if len(series) >= self.fewest else 1.0
        window = max(self.fewest, math.ceil(self.window / every))
        if len(series) < window:
            return None
        now = float(series.values[-window:].mean())
        return (now, now > self.worse) if now > self.limit else None

    def _steps_alike(self, history: History, series: Series) -> tuple[float, bool] | None:
        """The share of steps without any spread lately, and whether that is certain; None where it is not high.

        A step may hold a single group, which has no spread rather often, so that a share is compared with the one
        before it, p: for k of the last w steps, P(X >= k), X ~ Binomial(w, p), is below `chance`, and certain below a
        tenth of that. From the first step on `first` steps are enough, and certain where they all earned the same.
        """
        alike = series.values
        if alike.all():
            rewards = history.series("reward").values
            same = len(rewards) > 0 and not np.ptp(rewards)
            enough = self.first - 3 if same else self.first
            return (1.0, same or len(alike) >= 2 * self.first) if len(alike) >= enough else None
        for window in self.windows:
            before = alike[:-window]
            if len(before) < self.windows[0]:
                break
            now = float(alike[-window:].mean())
            if now <= self.limit:
                continue
            usual = (float(before.sum()) + 1) / (len(before) + 2)
            chance = _at_least(round(now * window), window, usual)
            if chance < self.chance:
                return now, chance < self.chance / 10
        return self._nearly_all_alike(history, alike)

    def _nearly_all_alike(self, history: History, alike: Values) -> tuple[float, bool] | None:
        """The share of steps without any spread since the run began, where hardly one had any and most were wrong."""
        now = float(alike.mean())
        if len(alike) < self.longest or now <= self.limit:
            return None
        right, wrong = self._told_apart(history, ("reward_std",), now)
        return (now, False) if wrong > right else None

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """Until a third of what is looked at teaches something again."""
        return float(self._share(history)[1].values[-self.window :].mean()) > 2 / 3

    def _share(self, history: History) -> tuple[tuple[str, ...], Series]:
        """What the share of equal groups is read from, and its course."""
        right, wrong = history.series("all_right"), history.series("all_wrong")
        size = min(len(right), len(wrong))
        if size >= self.window:
            return ("all_right", "all_wrong"), Series(right.steps[-size:], right.values[-size:] + wrong.values[-size:])
        equal = history.series("equal_groups")
        if len(equal):
            return ("equal_groups",), equal
        spread = history.series("reward_std")
        return ("reward_std",), Series(spread.steps, (spread.values <= SAME).astype(float))

    def _told_apart(self, history: History, columns: tuple[str, ...], equal: float) -> tuple[float, float]:
        if len(columns) == 2:
            right, wrong = (float(history.series(name).values[-self.window :].mean()) for name in columns)
            return right, wrong
        rewards = history.series("reward").values
        if not len(rewards):
            return 0.0, equal
        bounds = [history.series(name).values for name in ("reward_min", "reward_max")]
        low = float(min(rewards.min(), *(b.min() for b in bounds if len(b)), 0.0))
        high = float(max(rewards.max(), *(b.max() for b in bounds if len(b)), 1.0))
        rate = (float(rewards[-self.window :].mean()) - low) / (high - low)
        right = min(max(rate - (1 - equal) / 2, 0.0), equal)
        return right, equal - right


def _at_least(count: int, size: int, rate: float) -> float:
    """P(X >= count) for X ~ Binomial(size, rate)."""
    return sum(math.comb(size, k) * rate**k * (1 - rate) ** (size - k) for k in range(count, size + 1))


def _counted(columns: tuple[str, ...]) -> str:
    return "last steps" if columns == ("reward_std",) else "groups"
