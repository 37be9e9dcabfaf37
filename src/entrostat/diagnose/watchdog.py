"""The detectors over a run, a row at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from entrostat.diagnose.detectors import DETECTORS, Detector
from entrostat.diagnose.finding import SEVERITIES, Finding, Remedy
from entrostat.diagnose.history import History
from entrostat.diagnose.remedies import with_half_the_rate

WORST = len(SEVERITIES) - 1


class Watchdog:
    """Hears what a run logs and reports each failure once, and once more when it becomes critical.

    A log that is read afterwards goes through here row by row, so it gets the very findings that a live run gets.
    end: the last step that the run will take; where it is not known, a run of the length so far is thought to be as
    long again.
    """

    def __init__(self, end: int | None = None, detectors: Sequence[Detector] = DETECTORS) -> None:
        self.history = History()
        self.findings: list[Finding] = []
        self.end = end
        self._detectors = [(detector, deque[tuple[int, int]](maxlen=detector.confirm)) for detector in detectors]
        self._reported: dict[str, int] = {}

    def observe(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Hear the quantities logged at `step`; returns what is found now for the first time.

        Rows come in the order of their steps; several rows of one step may each bring some of its quantities.
        """
        fresh = self.history.append(step, values)
        end = max(self.end or 2 * self.history.step, self.history.step)
        new = []
        for detector, recent in self._detectors:
            if not fresh.intersection(detector.columns) or self._reported.get(detector.kind) == WORST:
                continue  # nothing new to look at, or nothing worse to say
            finding = detector.find(self.history, end)
            if recent and recent[-1][0] == step:
                recent.pop()  # the same step again, with more of its quantities
            recent.append((step, SEVERITIES.index(finding.severity) if finding else -1))
            if finding is None or len(recent) < detector.confirm:
                continue
            agreed = min(rank for _, rank in recent)
            if agreed > self._reported.get(finding.kind, -1):
                self._reported[finding.kind] = agreed
                new.append(replace(finding, severity=SEVERITIES[agreed], remedies=self._fitted(finding)))
        self.findings += new
        return new

    def _fitted(self, finding: Finding) -> tuple[Remedy, ...]:
        """Its remedies, with half of the highest learning rate that the run has logged."""
        rates = self.history.series("learning_rate").values
        return with_half_the_rate(finding.remedies, float(rates.max()) if len(rates) else None)

    def worst(self) -> list[Finding]:
        """The last finding of each kind, the critical ones first, then by their onset."""
        last = {finding.kind: finding for finding in self.findings}
        return sorted(last.values(), key=lambda finding: (finding.severity != "critical", finding.onset))

    def first_step(self, kind: str) -> int | None:
        """The step at which a kind was first reported."""
        return next((finding.step for finding in self.findings if finding.kind == kind), None)
