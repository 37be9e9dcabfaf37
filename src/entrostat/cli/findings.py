"""A finding as `diagnose` and `watch` show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

COLOURS = {"critical": "bold red", "warning": "bold yellow"}
HOSTS = {"recipe": "recipe", "trl": "TRL", "verl": "verl"}


def finding_lines(finding: Any, first_step: int, host: str | None = None) -> list[RenderableType]:
    """A finding: heading, summary, then each remedy with its settings and its reason.

    host: show the settings of this host alone, or of our recipe where the host has none; None for all.
    """
    heading = Text.assemble(
        (f"{finding.severity} ", COLOURS[finding.severity]),
        (f"{finding.kind}", "bold"),
        (f"  since step {finding.onset}, found at step {first_step}", "dim"),
    )
    remedies = [
        part for number, remedy in enumerate(finding.remedies, 1) for part in _remedy_lines(number, remedy, host)
    ]
    return [heading, _indented(Text(finding.summary), 2), *remedies]


def _remedy_lines(number: int, remedy: Any, host: str | None) -> Iterator[RenderableType]:
    yield _indented(Text.assemble(f"{number}. ", (remedy.action, "bold")), 2)
    changes = {name: getattr(remedy, name) for name in HOSTS if getattr(remedy, name)}
    if host in changes:
        changes = {host: changes[host]}
    elif host:
        changes = {name: own for name, own in changes.items() if name == "recipe"}
    for name, own in changes.items():
        yield _indented(Text(f"{HOSTS[name]:<6} {_one_line(own, name)}", style="cyan"), 5)
    yield _indented(Text(f"{remedy.reason} ({remedy.source})", style="dim"), 5)


def _indented(text: Text, by: int) -> Padding:
    return Padding(text, (0, 0, 0, by), expand=False)


def _one_line(changes: Any, host: str) -> str:
    from entrostat.diagnose.settings import settings

    if host != "recipe":
        return settings(changes, host)
    import yaml

    return yaml.safe_dump(dict(changes), default_flow_style=True, width=10_000).strip()
