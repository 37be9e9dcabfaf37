"""A policy that runs away from its reference, and a sampler that is no longer the policy that learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import KL, MISMATCH, STALE
from entrostat.diagnosis.score import has_fallen, has_risen
from entrostat.diagnosis.statistics import began, median, noise
from entrostat.runs.finding import Finding


@detector("kl-runaway")
@dataclass(frozen=True, kw_only=True)
class KlRunaway(Detector):
    """A divergence from the reference that grows faster and faster.

        now > ratio x half-way   and   now > least   and   now - half-way > certain x noise
        now = median of the last 5 values, half-way = median of the 5 around half of the values so far
        from `worse` nats on: now > even x half-way, which is more than even growth gives

    A divergence that grows evenly doubles from half-way on, one that levels off grows less; growth like t^2 gives 4.
    Below `least` nats per token the policy is near its reference whatever the growth. Critical from `worse` nats on, or
    where the score has fallen since. No finding while the score has risen with it: a policy that learns moves away.
    """

    columns: ClassVar = ("kl",)
    ratio: float = 5.0
    least: float = 0.15
    worse: float = 1.0
    even: float = 3.0
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
        ratio = self.even if now > self.worse else self.ratio
        if now <= ratio * half_way or now - half_way <= self.certain * noise(values):
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


@detector("sampler-mismatch")
@dataclass(frozen=True, kw_only=True)
class SamplerMismatch(Detector):
    """Log-probabilities of the trainer that part from those of the sampler.

        now = median of the last `window` values of the divergence (nats per token), or of the mean absolute difference
        now > limit,  or  now > growth x start and now > least and now - start > certain x noise

    `limit` for the divergence is what 5 % of the safe steps of studies/early-warning pass; for the mean difference ten
    times what bf16 scoring usually shows (about .01). Critical from `worse` times the limit on, or where the score has
    fallen since. Sources: arXiv 2605.14220; the names that hosts log it under are in `entrostat.runs.metrics`.
    """

    columns: ClassVar = ("kl_sampler", "mismatch")
    limit: float = 0.09
    worse: float = 5.0
    growth: float = 5.0
    least: float = 0.02
    certain: float = 6.0
    window: int = 5
    first: int = 5

    @override
    def find(self, history: History, end: int) -> Finding | None:
        for name in self.columns:
            finding = self._apart(history, name)
            if finding:
                return finding
        return None

    def _apart(self, history: History, name: str) -> Finding | None:
        series = history.series(name)
        values = abs(series.values)
        if len(values) < self.first + self.window:
            return None
        now, start = median(values[-self.window :]), median(values[: self.first])
        grown = now > max(self.growth * start, self.least) and now - start > self.certain * noise(values)
        if not grown and now <= self.limit:
            return None
        level = start + 0.3 * (now - start) if grown else self.limit
        onset = began(type(series)(series.steps, values), level, upwards=True)
        bad = now > self.worse * self.limit or has_fallen(history, onset)
        what = "divergence" if name == "kl_sampler" else "mean difference of log-probabilities"
        return Finding(
            kind=self.kind,
            severity="critical" if bad else "warning",
            step=history.step,
            onset=onset,
            summary=(
                f"Trainer and sampler part: a {what} of {now:.3g} nats per token, {start:.3g} at the start. What is "
                "learned from is not what the policy would write."
            ),
            evidence={"start": start, "now": now},
            columns=(name,),
            levels={"limit": self.limit},
            remedies=MISMATCH,
        )

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """Until half of it is gone."""
        values = abs(history.series(finding.columns[0]).values)
        return median(values[-self.window :]) > 0.5 * finding.evidence["now"]


@detector("staleness")
@dataclass(frozen=True, kw_only=True)
class Staleness(Detector):
    """Batches that were sampled many updates ago.

        median of the last `window` lags > limit updates

    A note; a warning from `worse` on, or where the score has fallen since. Stale updates were necessary for the fall in
    one setting of ours (studies/what-makes-the-cliff: four passes over a batch 5 of 5 fell, one pass 0 of 5).
    """

    columns: ClassVar = ("staleness",)
    limit: float = 4.0
    worse: float = 16.0
    window: int = 8

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("staleness")
        if len(series) < self.window:
            return None
        now = median(series.values[-self.window :])
        if now <= self.limit:
            return None
        onset = began(series, self.limit, upwards=True)
        return Finding(
            kind=self.kind,
            severity="warning" if now > self.worse or has_fallen(history, onset) else "note",
            step=history.step,
            onset=onset,
            summary=f"Batches are trained on {now:.3g} updates after they were sampled.",
            evidence={"now": now},
            columns=self.columns,
            levels={"limit": self.limit},
            remedies=STALE,
        )
