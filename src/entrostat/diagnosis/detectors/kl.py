"""A policy that runs away from its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import KL
from entrostat.diagnosis.score import has_fallen, has_risen
from entrostat.diagnosis.statistics import began, median, noise
from entrostat.runs.finding import Finding


@detector("kl-runaway")
@dataclass(frozen=True, kw_only=True)
class KlRunaway(Detector):
    """A divergence from the reference that grows faster and faster.

        now > ratio x half-way   and   now > least   and   now - half-way > certain x noise
        now = median of the last 5 values, half-way = median of the 5 around half of the values so far

    A divergence that grows evenly doubles from half-way on, one that levels off grows less; growth like t^2 gives 4.
    Below `least` nats per token the policy is near its reference whatever the growth. Critical from `worse` nats on, or
    where the score has fallen since. No finding while the score has risen with it: a policy that learns moves away.
    """

    columns: ClassVar = ("kl",)
    ratio: float = 5.0
    least: float = 0.15
    worse: float = 1.0
    certain: float = 6.0
    first: int = 16

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("kl")
        steps, values = series
        if len(values) < self.first:
            return None
        middle = len(values) // 2
        now = median(values[-5:])
        if now <= self.least:
            return None
        half_way = max(median(values[middle - 2 : middle + 3]), 0.0)
        if now <= self.ratio * half_way or now - half_way <= self.certain * noise(values):
            return None
        onset = began(series, max(2 * half_way, 0.2 * now), upwards=True)
        if has_risen(history, onset):
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.worse or has_fallen(history, onset) else "warning",
            step=history.step,
            onset=onset,
            summary=(
                f"The divergence from the reference runs away: {now:.3g} nats per token, "
                f"{half_way:.3g} at step {steps[middle]}."
            ),
            evidence={"now": now, "half_way": half_way, "half_way_step": float(steps[middle])},
            columns=self.columns,
            levels={"half-way": half_way},
            remedies=KL,
        )

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """As long as it stays above half of what it was found at, unless the score rises again."""
        now = median(history.series("kl").values[-5:])
        return now > 0.5 * finding.evidence["now"] and not has_risen(history, finding.onset)
