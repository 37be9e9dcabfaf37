"""The findings about a run folder, for its report."""

from __future__ import annotations

from pathlib import Path

from entrostat.diagnosis.columns import QUANTITIES
from entrostat.diagnosis.diagnosis import diagnose
from entrostat.diagnosis.finding import Finding
from entrostat.diagnosis.hosts import as_text
from entrostat.diagnosis.reading import read_log
from entrostat.report import Change, Notice


def run_notices(run: Path) -> list[Notice]:
    """What the detectors find in a run folder, critical first. LogError: it cannot be read."""
    found = diagnose(read_log(run))
    return [_notice(finding, found.first_steps[finding.kind]) for finding in found.findings]


def _notice(finding: Finding, first_step: int) -> Notice:
    return Notice(
        kind=finding.kind,
        severity=finding.severity,
        onset=finding.onset,
        found=first_step,
        step=finding.step,
        summary=finding.summary,
        evidence=finding.evidence,
        changes=[
            Change(remedy.action, remedy.reason, remedy.source, as_text(remedy.settings.get("recipe", {}), "recipe"))
            for remedy in finding.remedies
        ],
        panel=next((panel for name in finding.columns if (panel := QUANTITIES[name].panel)), None),
    )
