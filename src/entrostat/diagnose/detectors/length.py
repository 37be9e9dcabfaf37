"""Completions that hit the limit, or change length without becoming better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History
from entrostat.diagnose.remedies import LENGTH, TRUNCATION
from entrostat.diagnose.statistics import median, noise, rolling_mean, rolling_median


@dataclass(frozen=True, kw_only=True)
class Truncation(Detector):
    """Completions cut at the limit before they could answer, and more of them than at the start.

        now = mean of the last `window` shares > limit,   now > start + rise

    or now > always, whatever the start. A truncated completion earns nothing, so its tokens are all punished.
    """

    kind: ClassVar = "truncation"
    columns: ClassVar = ("truncated",)
    limit: float = 0.25
    rise: float = 0.15
    always: float = 0.7
    window: int = 6

    @override
    def find(self, history: History, end: int) -> Finding | None:
        steps, values = history.series("truncated")
        if len(values) < 2 * self.window:
            return None
        start, now = median(values[: self.window]), float(values[-self.window :].mean())
        if now <= self.limit or (now <= start + self.rise and now <= self.always):
            return None
        below = np.flatnonzero(rolling_mean(values, 3) <= start + 0.3 * max(now - start, 0.0))
        return Finding(
            kind=self.kind,
            severity="critical" if now > 0.5 else "warning",
            step=history.step,
            onset=int(steps[int(below[-1]) + 2]) if len(below) else int(steps[0]),
            summary=f"{now:.0%} of the completions are cut at the limit ({start:.0%} at the start).",
            evidence={"start": start, "now": now},
            columns=("truncated", *(("length",) if "length" in history else ())),
            levels={"start": start},
            remedies=TRUNCATION,
        )


@dataclass(frozen=True, kw_only=True)
class LengthDegeneration(Detector):
    """Completions that have become much longer or shorter, while the reward did not rise with them.

        now / start > growth  or  < 1 / growth          medians of the last 5 and of the first `first` values
        reward now - reward before the change <= certain x noise of these two means

    Before the change: up to the last value on the start's side of the geometric mean of start and now. Reasoning that
    grows with its reward (arXiv 2501.12948, fig. 3) is no failure, so without a reward there is no finding.
    """

    kind: ClassVar = "length-degeneration"
    columns: ClassVar = ("length",)
    growth: float = 2.5
    certain: float = 2.0
    first: int = 8
    window: int = 8

    @override
    def find(self, history: History, end: int) -> Finding | None:
        steps, values = history.series("length")
        if len(values) < self.first + 5:
            return None
        start, now = median(values[: self.first]), median(values[-5:])
        if start <= 0 or now <= 0 or abs(math.log(now / start)) <= math.log(self.growth):
            return None
        smooth = rolling_median(values, 3)
        middle = math.sqrt(start * now)
        unchanged = np.flatnonzero(smooth < middle if now > start else smooth > middle)
        turn = int(steps[int(unchanged[-1]) + 2]) if len(unchanged) else int(steps[0])
        gain = self._gain(history, turn)
        if gain is None or gain > 0:
            return None
        quarter = start * (now / start) ** 0.25
        early = np.flatnonzero(smooth < quarter if now > start else smooth > quarter)
        return Finding(
            kind=self.kind,
            severity="critical" if abs(math.log(now / start)) > 2 * math.log(self.growth) else "warning",
            step=history.step,
            onset=int(steps[int(early[-1]) + 2]) if len(early) else int(steps[0]),
            summary=(
                f"Completions went from {start:.0f} to {now:.0f} tokens and the reward did not rise with them: "
                f"they grow {'longer' if now > start else 'shorter'}, not better."
            ),
            evidence={"start": start, "now": now, "turn": float(turn)},
            columns=("length", "reward"),
            levels={"start": start},
            remedies=LENGTH,
        )

    def _gain(self, history: History, turn: int) -> float | None:
        """How much more the reward has risen since `turn` than its noise explains; None where that is not known."""
        steps, values = history.series("reward")
        before, after = values[steps < turn][-self.window :], values[-self.window :]
        if len(before) < 3 or len(after) < 3:
            return None
        error = noise(values) * math.sqrt(1 / len(before) + 1 / len(after))
        return float(after.mean() - before.mean()) - self.certain * error
