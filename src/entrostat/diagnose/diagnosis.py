"""A log, and what the detectors found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.diagnose.detectors import DETECTORS, Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.reading import Log
from entrostat.diagnose.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """findings: the last of each kind, critical ones first. first_steps: kind -> the step at which it was first found.
    end: the last step that the forecasts looked to, None for as long again."""

    log: Log
    watchdog: Watchdog
    findings: list[Finding]
    first_steps: dict[str, int]
    end: int | None

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, JSON-able."""
        return {
            "log": self.log.name,
            "format": self.log.format,
            "rows": len(self.log.rows),
            "file": self.log.file,
            "used": dict(self.log.used),
            "by": dict(self.log.by),
            "unread": list(self.log.unread),
            "lacking": list(self.log.lacking),
            "notes": list(self.log.notes),
            "end": self.end,
            "findings": [
                {**finding.as_dict(), "first_step": self.first_steps[finding.kind]} for finding in self.findings
            ],
        }


def diagnose(log: Log, end: int | None = None, detectors: Sequence[Detector] = DETECTORS) -> Diagnosis:
    """Run a log through the detectors, row by row, as a live run would have been.

    end: the last step of the run's budget; by default what the log says of it.
    """
    end = end or log.end
    watchdog = Watchdog(end, detectors)
    for step, values in log.rows:
        watchdog.observe(step, values)
    findings = watchdog.worst()
    first = {finding.kind: watchdog.first_step(finding.kind) or 0 for finding in findings}
    return Diagnosis(log, watchdog, findings, first, end)
