"""A finding as `diagnose` and `watch` show it."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

COLOURS = {"critical": "bold red", "warning": "bold yellow"}


def finding_lines(finding: Any, first_step: int) -> list[RenderableType]:
    """A finding with its remedies, a line each."""
    from entrostat.diagnose.settings import settings

    heading = Text.assemble(
        (f"{finding.severity} ", COLOURS[finding.severity]),
        (f"{finding.kind}", "bold"),
        (f"  since step {finding.onset}, found at step {first_step}", "dim"),
    )
    parts: list[RenderableType] = [heading, Padding(Text(finding.summary), (0, 2))]
    for remedy in finding.remedies:
        parts.append(
            Padding(Text.assemble("- ", (remedy.action, "bold"), f": {remedy.reason} ({remedy.source})"), (0, 2))
        )
        for host, changes in (("recipe", remedy.recipe), ("trl", remedy.trl), ("verl", remedy.verl)):
            if changes:
                parts.append(
                    Padding(Text(f"{host:<6} {_one_line(settings(changes, host), host)}", style="cyan"), (0, 6))
                )
    return parts


def _one_line(text: str, host: str) -> str:
    import yaml

    return (
        yaml.safe_dump(yaml.safe_load(text), default_flow_style=True, width=10_000).strip()
        if host == "recipe"
        else text
    )
