"""A sampler that is no longer the policy that learns: mismatch and staleness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import MISMATCH, STALE
from entrostat.diagnosis.score import has_fallen
from entrostat.diagnosis.statistics import began, median, noise
from entrostat.runs.finding import Finding


@detector("sampler-mismatch")
@dataclass(frozen=True, kw_only=True)
class SamplerMismatch(Detector):
    """Log-probabilities of the trainer that part from those of the sampler.

        now = median of the last `window` values of the divergence (nats per token), or of the mean absolute difference
        now > limit,  or  now > growth x start and now > least and now - start > certain x noise

    `limit` for the divergence is what 5 % of the safe steps of studies/early-warning pass; for the mean difference ten
    times what bf16 scoring usually shows (about .01). Critical from `worse` times the limit on, or where the score has
    fallen since. Sources: arXiv 2605.14220; the names that hosts log it under are in `entrostat.runs.schema`.
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
