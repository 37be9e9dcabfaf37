"""`diagnose` and `watch`: what is wrong with a run, afterwards and while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from entrostat.cli.findings import COLOURS, all_findings, past_findings
from entrostat.cli.progress import working
from entrostat.cli.screen import AsJson, console, refuse_missing, visible

FOUND = 3  # exit status of a finding, which no error, no wrong usage and no interrupt has
MOST_UNREAD = 30  # columns that are named on the terminal; --json names all
ENOUGH = 20  # rows from which on every detector can speak

Budget = Annotated[
    int | None, typer.Option(help="Last step of the run; by default what the log says, or as long again.", min=1)
]

Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="QUANTITY=COLUMN",
        help="Read a quantity from this column, as in entropy=my/column. May be given several times.",
    ),
]


Severe = Literal["warning", "critical"]
Detectors = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A detector of another package as well: MODULE:NAME, or an entry point's name."),
]


def diagnose(
    log: Annotated[Path, typer.Argument(help="A log file, an event or run folder, or - for standard input.")],
    budget: Budget = None,
    columns: Map = None,
    against: Annotated[
        Path | None, typer.Option(metavar="LOG", help="Another run: say where this one parted from it.")
    ] = None,
    fail_on: Annotated[
        Severe | None, typer.Option(help="End with status 3 if the run has a finding of this severity, for CI.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Whose settings to show; by default of the host that wrote the log.")
    ] = None,
    detector: Detectors = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with a run from its log, whatever trainer wrote it, and what to change.

    The status is 3 for a finding of the severity of --fail-on and for nothing else, 1 for a log that is not read or not
    understood, 2 for wrong usage.

    Example: entrostat diagnose outputs/checkpoint-400/trainer_state.json --html diagnosis.html
    """
    for file in (log, against):
        if file is not None and str(file) != "-":
            refuse_missing(file, "give the path of a log")
    from entrostat.diagnosis import diagnose as diagnose_log
    from entrostat.diagnosis import read_log
    from entrostat.diagnosis.against import partings
    from entrostat.diagnosis.hosts import HOSTS

    if host is not None and host not in HOSTS:
        raise typer.BadParameter(f"{host!r}; choose one of {', '.join(HOSTS)}", param_hint="--host")
    with working(f"reading {log}"):
        found = diagnose_log(read_log(log, mapped(columns)), budget, _detectors(detector))
        parted = partings(found.log, read_log(against, mapped(columns))) if against else None
    if html:
        from entrostat.diagnosis.page import write_page

        with working(f"drawing {html}"):
            write_page(found, html)
    if as_json:
        answer = found.as_dict()
        typer.echo(json.dumps(answer if parted is None else {**answer, "partings": [asdict(each) for each in parted]}))
    else:
        console.print(shown(found, host))
        if parted is not None and against:
            console.print(Group(*_parted(parted, against)))
        if html:
            console.print(visible(f"page: {html}"), style="bold", markup=False, soft_wrap=True)
    if not found.log.rows:
        typer.echo(visible(f"error: {log}: {' '.join(found.log.notes[-1:])}; nothing to diagnose"), err=True)
        raise typer.Exit(1)
    if fail_on and any(found.at_least(fail_on)):
        raise typer.Exit(FOUND)


def watch(
    logs: Annotated[
        list[Path],
        typer.Argument(help="Logs that are being written: files, event folders or run folders.", metavar="LOG..."),
    ],
    budget: Budget = None,
    columns: Map = None,
    until: Annotated[
        Severe | None, typer.Option(help="End with status 3 at the first finding of this severity.")
    ] = None,
    execute: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="COMMAND",
            help="Run this at each finding (with --until: of that severity), which is in ENTROSTAT_FINDING.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(envvar="ENTROSTAT_WEBHOOK", metavar="URL", help="Send each finding to this URL as JSON."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Append each finding to this file, one JSON object per line.")
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds from one look to the next.", min=0.1)] = 2.0,
    patience: Annotated[
        float, typer.Option(help="Seconds that a log may be missing or not understood before that is an error.", min=0)
    ] = 600.0,
    detector: Detectors = None,
    once: Annotated[bool, typer.Option(help="Look once and end.")] = False,
) -> None:
    """Follow runs and say what is going wrong as soon as a log shows it.

    The status is 3 for a finding of the severity of --until and for nothing else: 0 without one, 1 for a log that is
    not read or not understood, 2 for wrong usage, 130 for an interrupt.

    Example: entrostat watch runs/grpo --until critical --exec 'kill -INT 4711'
    """
    from entrostat.cli.live import as_bad_as, follow
    from entrostat.diagnosis.notify import Command, FindingLog, Sender, Webhook

    def senders(log: Path) -> list[Sender]:
        return [
            *([Webhook(webhook, log.name)] if webhook else []),
            *([FindingLog(record)] if record else []),
            *([Command(execute, log.name, lambda finding: as_bad_as(finding, until or "warning"))] if execute else []),
        ]

    try:
        watched = [(log, senders(log)) for log in logs]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--webhook") from error
    found = follow(watched, budget, mapped(columns), _detectors(detector), until, every, patience, once)
    raise typer.Exit(FOUND if found else 0)


def mapped(pairs: list[str] | None) -> dict[str, list[str]]:
    """QUANTITY=COLUMN pairs as quantity -> columns. BadParameter: one that is no such pair."""
    columns: dict[str, list[str]] = {}
    for pair in pairs or ():
        quantity, sign, column = pair.partition("=")
        if not (quantity and sign and column):
            raise typer.BadParameter(f"got {pair!r}; write QUANTITY=COLUMN", param_hint="--map")
        columns.setdefault(quantity.strip(), []).append(column.strip())
    return columns


def _detectors(names: list[str] | None) -> Any:
    """Ours and those named. BadParameter: a name that none has."""
    from entrostat.diagnosis.detectors import detectors_named

    try:
        return detectors_named(names or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--detector") from error


def shown(found: Any, host: str | None = None) -> RenderableType:
    """A diagnosis as the terminal shows it: what is wrong first, then what was read. host: whose settings to show."""
    from entrostat.diagnosis.hosts import host_of

    log = found.log
    host = host or host_of(name for own in log.used.values() for name in own)
    parts: list[RenderableType] = [
        Text(visible(f"{_named(log)}: {log.format}, {_rows(log.rows)}"), style="bold"),
        *(Text(visible(f"note: {note}"), style="dim") for note in log.notes),
        *_in_short(found.findings),
        *all_findings(found.findings, host),
    ]
    if log.rows and not any(found.at_least("warning")):
        parts += [Text(), *_all_well(log.rows)]
    parts += past_findings(found.over)
    if log.used:
        parts += [Text(), *(Text(visible(line), style="dim") for line in _looked_at(found))]
    return Group(*parts)


def _in_short(findings: list[Any]) -> list[Text]:
    """A line for each severity: the kinds found."""
    kinds = {each: [f.kind for f in findings if f.severity == each] for each in ("critical", "warning", "note")}
    return [Text(f"{each}: {', '.join(own)}", style=COLOURS[each]) for each, own in kinds.items() if own]


def _looked_at(found: Any) -> Iterator[str]:
    """What was read, what was and what could not be looked for, and what was assumed."""
    used = found.log.used
    how = {"name": "", "words": ", by its words", "map": ", by --map"}
    by = found.log.by
    columns = [
        name if own == (name,) else f"{name} ({', '.join(own)}{how[by.get(name, 'name')]})"
        for name, own in used.items()
    ]
    yield "read: " + ", ".join(columns)
    if unread := found.log.unread:
        yield f"not read: {', '.join(unread[:MOST_UNREAD])}{', ...' if len(unread) > MOST_UNREAD else ''}"
    yield "looked for: " + ", ".join(f"{kind} (in {', '.join(own)})" for kind, own in found.sighted.items())
    if found.blind:
        lacking = ", ".join(f"{kind} (no {' or '.join(own)})" for kind, own in found.blind.items())
        yield "not in the log, so not looked for: " + lacking
    if found.end is None and any("end" in finding.evidence for finding in found.findings):
        yield "the log does not say where the run ends: taken to be as long again; --budget STEP says it"


def _parted(parted: list[Any], against: Path) -> Iterator[Text]:
    """Where the run parted from another, the earliest first."""
    yield Text()
    if not parted:
        yield Text(visible(f"No quantity of both ends apart from {against.name}."), style="green")
        return
    yield Text(visible(f"Parted from {against.name}:"), style="bold")
    for each in parted:
        yield Text(
            f"  since step {each.step}: {each.quantity.replace('_', ' ')} {each.here:.3g}, there {each.there:.3g}"
        )


def _all_well(rows: list[Any]) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text("No finding: nothing that the detectors know is wrong with this run.", style="green")
    ]
    if len(rows) < ENOUGH:
        parts.append(Text(f"That says little yet: most detectors need {ENOUGH} rows.", style="yellow"))
    return parts


def _named(log: Any) -> str:
    return f"{log.name} ({log.file})" if log.file else str(log.name)


def _rows(rows: list[Any]) -> str:
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    return f"{count}, steps {rows[0][0]} to {rows[-1][0]}" if len(rows) > 1 else count
