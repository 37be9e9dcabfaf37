"""A policy that runs away from its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History
from entrostat.diagnose.remedies import KL
from entrostat.diagnose.statistics import median, noise, rolling_median


@dataclass(frozen=True, kw_only=True)
class KlRunaway(Detector):
    """A divergence from the reference that grows faster and faster.

        now > ratio x half-way   and   now > least   and   now - half-way > certain x noise
        now = median of the last 5 values, half-way = median of the 5 around half of the values so far

    A divergence that grows evenly doubles from half-way on, one that levels off grows less; growth like t^2 gives 4.
    Below `least` nats a token the policy is near its reference whatever the growth. Critical from `worse` nats on.
    """

    kind: ClassVar = "kl-runaway"
    columns: ClassVar = ("kl",)
    ratio: float = 5.0
    least: float = 0.15
    worse: float = 1.0
    certain: float = 6.0
    first: int = 16

    @override
    def find(self, history: History, end: int) -> Finding | None:
        steps, values = history.series("kl")
        if len(values) < self.first:
            return None
        middle = len(values) // 2
        now, half_way = median(values[-5:]), max(median(values[middle - 2 : middle + 3]), 0.0)
        if now <= max(self.ratio * half_way, self.least) or now - half_way <= self.certain * noise(values):
            return None
        below = np.flatnonzero(rolling_median(values, 3) < max(2 * half_way, 0.2 * now))
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.worse else "warning",
            step=history.step,
            onset=int(steps[int(below[-1]) + 2]) if len(below) else int(steps[middle]),
            summary=(
                f"The divergence from the reference runs away: {now:.3g} nats a token, "
                f"{half_way:.3g} at step {steps[middle]}."
            ),
            evidence={"now": now, "half_way": half_way, "half_way_step": float(steps[middle])},
            columns=self.columns,
            levels={"half-way": half_way},
            remedies=KL,
        )
