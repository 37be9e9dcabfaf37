"""Groups that teach nothing, because all their completions earn the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History
from entrostat.diagnose.remedies import ALL_RIGHT, ALL_WRONG


@dataclass(frozen=True, kw_only=True)
class DegenerateGroups(Detector):
    """Groups whose completions are all right or all wrong, so that every advantage in them is 0.

        mean over the last `window` values of all_right + all_wrong (or of the share of equal groups) > limit

    Where a log has only the share z of equal groups and the mean reward r, put on 0 ... 1 by the least and the greatest
    reward seen, the two are told apart by their bounds: all_right lies in [r - (1 - z), r], its middle is reported.
    A third to a half is usual with groups of 8 (arXiv 2503.14476, section 3.2, which filters them out); at `limit` five
    of six samples are wasted. Critical from `worse` on.
    """

    kind: ClassVar = "degenerate-groups"
    columns: ClassVar = ("all_right", "all_wrong", "equal_groups")
    limit: float = 0.85
    worse: float = 0.95
    window: int = 10

    @override
    def find(self, history: History, end: int) -> Finding | None:
        right, wrong = (history.series(name).values[-self.window :] for name in ("all_right", "all_wrong"))
        equal = history.series("equal_groups")
        if len(right) >= self.window and len(wrong) >= self.window:
            shares = (float(right.mean()), float(wrong.mean()))
            steps, course = history.series("all_right").steps, _sum(history)
            columns: tuple[str, ...] = ("all_right", "all_wrong")
        elif len(equal) >= self.window:
            shares = self._told_apart(history, float(equal.values[-self.window :].mean()))
            steps, course, columns = equal.steps, equal.values, ("equal_groups",)
        else:
            return None
        now = sum(shares)
        if now <= self.limit:
            return None
        mostly_right = shares[0] > shares[1]
        below = np.flatnonzero(course <= self.limit)
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.worse else "warning",
            step=history.step,
            onset=int(steps[min(int(below[-1]) + 1, len(steps) - 1)]) if len(below) else int(steps[0]),
            summary=(
                f"{now:.0%} of the groups teach nothing: {shares[0]:.0%} are all right, {shares[1]:.0%} all wrong. "
                + ("The tasks are too easy by now." if mostly_right else "The tasks are too hard.")
            ),
            evidence={"all_right": shares[0], "all_wrong": shares[1]},
            columns=columns,
            levels={"limit": self.limit},
            remedies=ALL_RIGHT if mostly_right else ALL_WRONG,
        )

    def _told_apart(self, history: History, equal: float) -> tuple[float, float]:
        rewards = history.series("reward").values
        if not len(rewards):
            return 0.0, equal
        bounds = [history.series(name).values for name in ("reward_min", "reward_max")]
        low = float(min(rewards.min(), *(b.min() for b in bounds if len(b)), 0.0))
        high = float(max(rewards.max(), *(b.max() for b in bounds if len(b)), 1.0))
        rate = (float(rewards[-self.window :].mean()) - low) / (high - low)
        right = min(max(rate - (1 - equal) / 2, 0.0), equal)
        return right, equal - right


def _sum(history: History) -> np.ndarray:
    right, wrong = history.series("all_right").values, history.series("all_wrong").values
    size = min(len(right), len(wrong))
    return right[-size:] + wrong[-size:]
