"""`diagnose` and `watch`: what is wrong with a run, afterwards and while it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from entrostat.cli.findings import finding_lines
from entrostat.cli.screen import AsJson, console, plain_errors, visible

ENOUGH = 20  # rows from which on every detector can speak

Budget = Annotated[
    int | None, typer.Option(help="Last step of the run; by default what the log says, or as long again.", min=1)
]


def diagnose(
    log: Annotated[Path, typer.Argument(help="A log file, an event folder or a run folder.")],
    budget: Budget = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with a run from its log, whatever trainer wrote it, and what to change.

    Example: entrostat diagnose outputs/checkpoint-400/trainer_state.json --html diagnosis.html
    """
    from entrostat.diagnose import diagnose as diagnose_log
    from entrostat.diagnose import read_log

    with plain_errors():
        found = diagnose_log(read_log(log), budget)
        if html:
            from entrostat.diagnose.page import write_page

            write_page(found, html)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        console.print(shown(found))
        if html:
            console.print(visible(f"page: {html}"), style="bold", markup=False, soft_wrap=True)
    if not found.log.rows:
        typer.echo(visible(f"error: {log}: {found.log.notes[-1]}; nothing to diagnose"), err=True)
        raise typer.Exit(1)


def watch(
    log: Annotated[Path, typer.Argument(help="A log that is being written: a file, an event folder or a run folder.")],
    budget: Budget = None,
    until: Annotated[
        Literal["warning", "critical"] | None,
        typer.Option(help="End with status 2 at the first finding of this severity, for a script to act on."),
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Send each finding to this URL as JSON.")] = None,
    record: Annotated[Path | None, typer.Option(help="Append each finding to this file, a JSON object a line.")] = None,
    every: Annotated[float, typer.Option(help="Seconds from one look to the next.", min=0.1)] = 2.0,
    once: Annotated[bool, typer.Option(help="Look once and end.")] = False,
) -> None:
    """Follow a run while it goes on, and say what is going wrong as soon as the log shows it.

    Example: entrostat watch runs/grpo --until critical || pkill -INT -f train.py
    """
    from entrostat.cli.live import follow
    from entrostat.diagnose.notify import FindingLog, Sender, Webhook

    try:
        senders: list[Sender] = [
            *([Webhook(webhook, log.name)] if webhook else []),
            *([FindingLog(record)] if record else []),
        ]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--webhook") from error
    with plain_errors():
        status = follow(log, budget, until, senders, every, once)
    raise typer.Exit(status)


def shown(found: Any) -> RenderableType:
    """A diagnosis as the terminal shows it: what is wrong first, then what was read."""
    from entrostat.diagnose.settings import host_of

    log, host = found.log, host_of(found.log)
    parts: list[RenderableType] = [
        Text(f"{visible(log.name)}: {log.format}, {_rows(log.rows)}", style="bold"),
        *(Text(visible(f"note: {note}"), style="dim") for note in log.notes),
    ]
    for finding in found.findings:
        parts += [Text(), *finding_lines(finding, found.first_steps[finding.kind], host)]
    if log.rows and not found.findings:
        parts += [Text(), *_all_well(log.rows)]
    used = [f"{quantity} ({', '.join(columns)})" for quantity, columns in log.used.items()]
    if used:
        parts += [
            Text(),
            Text(visible("read: " + ", ".join(used)), style="dim"),
            Text("not in the log, so not looked at: " + ", ".join(log.lacking), style="dim"),
        ]
    return Group(*parts)


def _all_well(rows: list[Any]) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text("No finding: nothing that the detectors know is wrong with this run.", style="green")
    ]
    if len(rows) < ENOUGH:
        parts.append(Text(f"That says little yet: most detectors need {ENOUGH} rows.", style="yellow"))
    return parts


def _rows(rows: list[Any]) -> str:
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    return f"{count}, steps {rows[0][0]} to {rows[-1][0]}" if len(rows) > 1 else count
