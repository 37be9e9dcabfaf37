"""Completions that hit the limit, change length without becoming better, or repeat themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import LENGTH, REPETITION, TRUNCATION
from entrostat.diagnosis.score import change_since, has_risen
from entrostat.diagnosis.statistics import began, median, roughness
from entrostat.runs.finding import Finding


@detector("truncation")
@dataclass(frozen=True, kw_only=True)
class Truncation(Detector):
    """Completions cut at the limit before they could answer, and more of them than at the start.

        now = mean of the last `window` shares,   least = now - their roughness / sqrt(window)
        least > limit,   now > start + rise                                         start = median of the first `window`

    or least > always, whatever the start. A truncated completion earns nothing, so its tokens are all punished. Above
    `half` it is critical. While the score has risen with it, it is a warning; if it was so from the start, there is no
    finding then: where a completion earns its reward before the limit, the cut does not matter.
    """

    columns: ClassVar = ("truncated",)
    limit: float = 0.25
    rise: float = 0.15
    always: float = 0.7
    half: float = 0.5
    window: int = 6

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("truncated")
        values = series.values
        if len(values) < self.window:
            return None
        now = float(values[-self.window :].mean())
        least = now - roughness(values[-self.window :]) / math.sqrt(self.window)  # less its error
        if least <= self.limit:
            return None
        start = median(values[: self.window])
        more = len(values) >= 2 * self.window and now > start + self.rise
        if not more and least <= self.always:
            return None
        level = start + 0.3 * (now - start) if more else self.always
        onset = began(series, level, upwards=True)
        risen = has_risen(history, onset)
        if risen and not more:
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.half and not risen else "warning",
            step=history.step,
            onset=onset,
            summary=f"{now:.0%} of the completions are cut at the limit ({start:.0%} at the start).",
            evidence={"start": start, "now": now},
            columns=("truncated", *(("length",) if "length" in history else ())),
            levels={"start": start},
            remedies=TRUNCATION,
        )

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """Until a good part of them ends by themselves again, or, where they never did, the score has risen."""
        now = float(history.series("truncated").values[-self.window :].mean())
        more = now > finding.evidence["start"] + self.rise
        lasts = now > max(self.limit, 0.7 * finding.evidence["now"])
        return lasts and (more or not has_risen(history, finding.onset))


@detector("length-degeneration")
@dataclass(frozen=True, kw_only=True)
class LengthDegeneration(Detector):
    """Completions that have become much longer or shorter, while the score did not rise with them.

        now / start > growth  or  < 1 / growth          medians of the last 5 and of the first `first` values

    The score is compared with what it was before the change began; up to growth^far, one that is level since, but has
    risen since the run began, will do. Reasoning that grows with its reward (arXiv 2501.12948, fig. 3), and completions
    that shrink because fewer of them run into the limit, are no failure; without a score there is no finding.
    """

    columns: ClassVar = ("length",)
    growth: float = 2.5
    far: float = 1.2
    first: int = 8

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("length")
        values = series.values
        if len(values) < self.first + 5:
            return None
        start, now = median(values[: self.first]), median(values[-5:])
        if start <= 0 or now <= 0 or abs(math.log(now / start)) <= math.log(self.growth):
            return None
        onset = began(series, start * (now / start) ** 0.25, upwards=now > start)
        change = change_since(history, onset)
        if change is None or change.risen:
            return None
        far = abs(math.log(now / start)) > self.far * math.log(self.growth)
        if not (change.fallen or far) and has_risen(history, int(series.steps[0])):
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if abs(math.log(now / start)) > 2 * math.log(self.growth) else "warning",
            step=history.step,
            onset=onset,
            summary=(
                f"Completions went from {start:.0f} to {now:.0f} tokens and the score did not rise with them: "
                f"they grow {'longer' if now > start else 'shorter'}, not better."
            ),
            evidence={"start": start, "now": now, "score_before": change.before, "score_now": change.now},
            columns=("length", change.name),
            levels={"start": start},
            remedies=LENGTH,
        )


@detector("repetition")
@dataclass(frozen=True, kw_only=True)
class Repetition(Detector):
    """A share of completions that repeat themselves which has grown.

    now = median of the last `window` shares > limit   and   > start + rise;   critical above `half`
    """

    columns: ClassVar = ("repetition",)
    limit: float = 0.2
    rise: float = 0.1
    half: float = 0.5
    window: int = 6

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("repetition")
        if len(series) < 2 * self.window:
            return None
        start, now = median(series.values[: self.window]), median(series.values[-self.window :])
        if now <= max(self.limit, start + self.rise):
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.half else "warning",
            step=history.step,
            onset=began(series, start + 0.3 * (now - start), upwards=True),
            summary=f"{now:.0%} of the completions repeat themselves ({start:.0%} at the start).",
            evidence={"start": start, "now": now},
            columns=self.columns,
            levels={"start": start},
            remedies=REPETITION,
        )
