"""A finding as `diagnose` and `watch` show it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COLOURS = {"critical": "bold red", "warning": "bold yellow", "note": "bold"}


def all_findings(findings: Sequence[Any], host: str | None) -> Iterator[RenderableType]:
    """Every finding with its remedies; of a remedy that comes again its action alone."""
    told: set[str] = set()
    for finding in findings:
        yield Text()
        yield heading(finding)
        yield Padding(Text(finding.summary), (0, 0, 0, 2), expand=False)
        yield remedies(finding.remedies, host, told)
        told.update(remedy.action for remedy in finding.remedies)


def past_findings(findings: Sequence[Any]) -> Iterator[RenderableType]:
    """A line for each finding that later rows no longer show."""
    if findings:
        yield Text()
    for finding in findings:
        yield Text(
            f"over: {finding.severity} {finding.kind}, from step {finding.onset} on, not shown any more since step "
            f"{finding.over}",
            style="dim",
        )


def heading(finding: Any) -> Text:
    """Severity, kind, and since when."""
    return Text.assemble(
        (f"{finding.severity} ", COLOURS[finding.severity]),
        (f"{finding.kind}", "bold"),
        (f"  since step {finding.onset}, found at step {finding.first_step}", "dim"),
    )


def remedies(found: Sequence[Any], host: str | None, told: Collection[str] = ()) -> RenderableType:
    """Each remedy: action, settings in the host's words, what was measured, reason. host: None where it is unknown."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for number, remedy in enumerate(found, 1):
        action = Text(remedy.action, style="bold")
        if remedy.action in told:
            grid.add_row(f"{number}.", action.append(" (as above)", "not bold dim"))
            continue
        reason = Text(f"{remedy.reason} ({remedy.source})", style="dim")
        measured = [Text(f"measured: {remedy.evidence}", style="dim")] if remedy.evidence else []
        grid.add_row(f"{number}.", Group(action, *_settings(remedy, host), *measured, reason))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _settings(remedy: Any, host: str | None) -> Iterator[Text]:
    from entrostat.diagnosis.hosts import HOSTS, as_text, shown_hosts

    for name in shown_hosts(host):
        changes = remedy.settings.get(name)
        if changes:
            text = as_text(changes, name) if name != "recipe" else _one_line(changes)
            yield Text(f"{HOSTS[name]:<6} {text}", style="cyan")


def _one_line(changes: Any) -> str:
    import yaml

    return yaml.safe_dump(dict(changes), default_flow_style=True, width=10_000).strip()
