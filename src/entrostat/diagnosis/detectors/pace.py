"""Steps that take longer and longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History, Series
from entrostat.diagnosis.remedies import SLOW
from entrostat.diagnosis.statistics import began, median, median_above
from entrostat.runs.finding import Finding


@detector("slow-steps")
@dataclass(frozen=True, kw_only=True)
class SlowSteps(Detector):
    """Steps that take several times as long as before, though completions have not grown as much.

        slower = median of the last `window` times / median of those before      (throughputs: the inverse)
        slower > factor x max(1, growth of the mean length)

    A warning, critical never: the run is not wrong, it is expensive. A single step that hangs, such as one that loads
    code or writes a checkpoint, moves no median.
    """

    columns: ClassVar = ("step_time", "throughput")
    factor: float = 3.0
    window: int = 6
    first: int = 12

    @override
    def find(self, history: History, end: int) -> Finding | None:
        for name in self.columns:
            series = history.series(name)
            if len(series) < self.first + self.window or series.values.min() <= 0:
                continue
            values = series.values if name == "step_time" else 1 / series.values
            now = median(values[-self.window :])
            if median_above(values[: -self.window], now / self.factor):
                continue
            before = median(values[: -self.window])
            slower = now / before
            if slower <= self.factor * self._growth(history):
                continue
            shown = (before, now) if name == "step_time" else (1 / before, 1 / now)
            unit = "seconds per step" if name == "step_time" else "per second"
            return Finding(
                kind=self.kind,
                severity="warning",
                step=history.step,
                onset=began(Series(series.steps, np.asarray(values)), before + 0.3 * (now - before), upwards=True),
                summary=f"Steps are {slower:.1f} times slower: {shown[1]:.3g} {unit}, {shown[0]:.3g} before.",
                evidence={"before": shown[0], "now": shown[1]},
                columns=(name,),
                levels={"before": shown[0]},
                remedies=SLOW,
            )
        return None

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """As long as steps are nearer to what they were found at than to what they were."""
        name = finding.columns[0]
        now = median(history.series(name).values[-self.window :])
        middle = (finding.evidence["before"] * finding.evidence["now"]) ** 0.5
        return bool(now > middle if name == "step_time" else now < middle)

    def _growth(self, history: History) -> float:
        """By how much completions have grown, at least 1; 1 where the log does not tell."""
        lengths = history.series("length").values
        if len(lengths) < self.first + self.window:
            return 1.0
        before = median(lengths[: -self.window])
        return max(1.0, median(lengths[-self.window :]) / before) if before > 0 else 1.0
