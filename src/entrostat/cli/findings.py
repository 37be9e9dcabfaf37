"""A finding as `diagnose` and `watch` show it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COLOURS = {"critical": "bold red", "warning": "bold yellow"}
HOSTS = {"recipe": "recipe", "trl": "TRL", "verl": "verl"}
OURS = "entrostat"  # label of our settings beside another host's


def all_findings(findings: Sequence[Any], first_steps: Any, host: str | None) -> Iterator[RenderableType]:
    """Every finding with its remedies; of a remedy that comes again its action alone."""
    told: set[str] = set()
    for finding in findings:
        yield Text()
        yield heading(finding, first_steps[finding.kind])
        yield Padding(Text(finding.summary), (0, 0, 0, 2), expand=False)
        yield remedies(finding.remedies, host, told)
        told.update(remedy.action for remedy in finding.remedies)


def heading(finding: Any, first_step: int) -> Text:
    """Severity, kind, and since when."""
    return Text.assemble(
        (f"{finding.severity} ", COLOURS[finding.severity]),
        (f"{finding.kind}", "bold"),
        (f"  since step {finding.onset}, found at step {first_step}", "dim"),
    )


def remedies(found: Sequence[Any], host: str | None, told: Collection[str] = ()) -> RenderableType:
    """Each remedy: action, settings, reason. host: show its settings alone, or ours where it has none; None for all."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for number, remedy in enumerate(found, 1):
        action = Text(remedy.action, style="bold")
        if remedy.action in told:
            grid.add_row(f"{number}.", action.append(" (as above)", "not bold dim"))
            continue
        reason = Text(f"{remedy.reason} ({remedy.source})", style="dim")
        grid.add_row(f"{number}.", Group(action, *_settings(remedy, host), reason))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def _settings(remedy: Any, host: str | None) -> Iterator[Text]:
    changes = {name: getattr(remedy, name) for name in HOSTS if getattr(remedy, name)}
    if host in changes:
        changes = {host: changes[host]}
    elif host:
        changes = {name: own for name, own in changes.items() if name == "recipe"}
    for name, own in changes.items():
        label = OURS if name == "recipe" and host not in (None, "recipe") else HOSTS[name]
        yield Text(f"{label:<6} {_one_line(own, name)}", style="cyan")


def _one_line(changes: Any, host: str) -> str:
    from entrostat.diagnose.settings import settings

    if host != "recipe":
        return settings(changes, host)
    import yaml

    return yaml.safe_dump(dict(changes), default_flow_style=True, width=10_000).strip()
