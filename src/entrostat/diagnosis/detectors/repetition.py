"""Completions that repeat themselves, or are all of one template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import COLLAPSE, REPETITION
from entrostat.diagnosis.score import has_risen
from entrostat.diagnosis.statistics import began, median, noise
from entrostat.runs.finding import Finding


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


@detector("template-collapse")
@dataclass(frozen=True, kw_only=True)
class TemplateCollapse(Detector):
    """Completions that have all become the same: their mean length no longer varies, and hardly any entropy is left.

        noise of ln length over the last `window` values < still x that over the first
        entropy now < spent x its start                   and the score has not risen since

    A policy that answers every prompt by one template loses the variation between batches along with its entropy; one
    that has solved its task may do so as well, but then the score has risen.
    """

    columns: ClassVar = ("length", "entropy")
    still: float = 0.1
    spent: float = 0.2
    window: int = 12
    unlike: float = 0.01
    """Less noise than this at the start, and a loss of it says nothing."""

    @override
    def find(self, history: History, end: int) -> Finding | None:
        length, entropy = history.series("length"), history.series("entropy")
        if len(length) < 2 * self.window or len(entropy) < 2 * self.window:
            return None
        start, now = median(entropy.values[:5]), median(entropy.values[-5:])
        if now >= self.spent * start:
            return None
        early, late = length.values[: self.window], length.values[-self.window :]
        usual = noise(early) / max(float(early.mean()), 1.0)
        left = noise(late) / max(float(late.mean()), 1.0)
        if usual < self.unlike or left >= self.still * usual:
            return None
        onset = int(length.steps[-self.window])
        if has_risen(history, began(entropy, 0.5 * start, upwards=False)):
            return None
        return Finding(
            kind=self.kind,
            severity="warning",
            step=history.step,
            onset=onset,
            summary=(
                f"All completions have become alike: their mean length stays at {float(late.mean()):.0f} tokens "
                f"(it varied by {usual:.0%} between steps at first, by {left:.1%} now) with {now / start:.0%} of the "
                "entropy left."
            ),
            evidence={"variation_at_first": usual, "variation_now": left, "entropy_left": now / start},
            columns=("length", "entropy"),
            remedies=COLLAPSE,
        )
