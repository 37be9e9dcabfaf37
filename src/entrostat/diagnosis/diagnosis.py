"""A log, and what the detectors found in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.diagnosis.detectors import DETECTORS, Detector
from entrostat.diagnosis.reading import Log
from entrostat.diagnosis.watchdog import Watchdog
from entrostat.runs.finding import SEVERITIES, Finding
from entrostat.runs.html import table

SCHEMA = 2  # of as_dict(): a number that grows when a key changes its meaning or goes


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """findings: what is true of the run at its last row, the worst first. over: what was found and is over,
    with the step from which on. end: the last step that the forecasts looked to, None for as long again. detectors:
    those that looked."""

    log: Log
    watchdog: Watchdog
    findings: list[Finding]
    over: list[Finding]
    end: int | None
    detectors: Sequence[Detector] = DETECTORS

    def __repr__(self) -> str:
        said = ", ".join(f"{each.severity} {each.kind} since step {each.onset}" for each in self.findings)
        return f"Diagnosis({self.log.name!r}, {len(self.log.rows)} rows: {said or 'no finding'})"

    def _repr_html_(self) -> str:
        rows = [
            {
                "severity": each.severity,
                "finding": each.kind,
                "since step": each.onset,
                "what": each.summary,
                "try first": each.remedies[0].action if each.remedies else "",
            }
            for each in self.findings
        ]
        return table(f"{self.log.name}: {len(self.log.rows)} rows, {len(rows) or 'no'} findings", rows)

    @property
    def sighted(self) -> Mapping[str, tuple[str, ...]]:
        """Kind -> the quantities of the log that its detector looked at; kinds that it could look for."""
        return {each.kind: seen for each in self.detectors if (seen := self._seen(each))}

    @property
    def blind(self) -> Mapping[str, tuple[str, ...]]:
        """Kind -> the quantities of which the log would have to have one; kinds that could not be looked for."""
        return {each.kind: each.columns for each in self.detectors if not self._seen(each)}

    def at_least(self, severity: str) -> Iterator[Finding]:
        """The current findings, of this severity or a worse one."""
        least = SEVERITIES.index(severity)
        return (each for each in self.findings if SEVERITIES.index(each.severity) >= least)

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, JSON-able; docs/diagnose.md lists its keys."""
        return {
            "schema": SCHEMA,
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
            "findings": [finding.as_dict() for finding in self.findings],
            "past": [finding.as_dict() for finding in self.over],
            "sighted": dict(self.sighted),
            "blind": dict(self.blind),
        }

    def _seen(self, detector: Detector) -> tuple[str, ...]:
        return tuple(name for name in detector.columns if name in self.log.used)


def diagnose(log: Log, end: int | None = None, detectors: Sequence[Detector] = DETECTORS) -> Diagnosis:
    """Run a log through the detectors, row by row, as a live run would have been.

    end: the last step of the run's budget; by default what the log says of it.
    """
    end = end or log.end
    watchdog = Watchdog(end, detectors)
    for step, values in log.rows:
        watchdog.observe(step, values)
    findings = watchdog.standing()
    return Diagnosis(log, watchdog, findings, watchdog.past, end, detectors)
