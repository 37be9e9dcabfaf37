"""The screen of `watch`: the run's last figures, drawn small, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from entrostat.cli.findings import heading, remedies
from entrostat.cli.screen import console, visible
from entrostat.diagnose import SEVERITIES, Finding, LogError, Series
from entrostat.diagnose.follow import Follower
from entrostat.diagnose.notify import Sender, sentence
from entrostat.diagnose.settings import host_of

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
REST = 20  # a look over a long log takes a second: rest for that many times as long as it took
SHOWN = ("heldout", "reward", "entropy", "clip_low", "clip_high", "clip", "length", "truncated", "kl", "grad_norm")


def follow(
    path: Path,
    end: int | None,
    until: str | None,
    senders: Sequence[Sender],
    every: float,
    patience: float,
    once: bool,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> bool:
    """Follow a log until it is interrupted, or until a finding of the severity `until`; returns whether there was one.

    A log that is missing, cannot be read or has nothing in it that is understood is waited for, and said to be so.
    LogError: it is still so after `patience` seconds, or at once with `once`.
    """
    follower = Follower(path, end, columns)
    blind_since = time.monotonic()
    said: str | None = None
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            began = time.monotonic()
            new, problem = _look(follower)
            if problem is None:
                blind_since = began
            elif once or began - blind_since >= patience:
                raise LogError(problem)
            failures = [failure for finding in new for sender in senders if (failure := sender.send(finding))]
            live.update(screen(follower, problem or next(iter(failures), None)), refresh=True)
            if not console.is_terminal:
                lines = [sentence(finding, path.name) for finding in new] + failures
                for line in [*lines, *([problem] if problem and problem != said else [])]:
                    console.print(visible(line), markup=False, soft_wrap=True)
                said = problem
            if until and any(as_bad_as(finding, until) for finding in new):
                return True
            if once:
                return False
            time.sleep(max(every, REST * (time.monotonic() - began)))


def as_bad_as(finding: Finding, severity: str) -> bool:
    """Whether a finding is of this severity or a worse one."""
    return SEVERITIES.index(finding.severity) >= SEVERITIES.index(severity)


def _look(follower: Follower) -> tuple[list[Finding], str | None]:
    """The new findings, and why nothing can be seen in the log, if nothing can."""
    try:
        new = follower.look()
    except LogError as error:
        return [], str(error)
    if follower.log is None or follower.log.rows:
        return new, None
    why = "".join(f"; {note}" for note in follower.log.notes[-1:])
    return new, f"{follower.path} ({follower.log.format}): no quantity is understood in it{why}"


def screen(follower: Follower, problem: str | None = None) -> RenderableType:
    """What the terminal shows of a run under way."""
    history, log = follower.watchdog.history, follower.log
    table = Table.grid(padding=(0, 2))
    for name in SHOWN:
        series = history.series(name)
        if len(series):
            table.add_row(
                Text(name.replace("_", " ")), Text(f"{series.values[-1]:.4g}"), Text(sparkline(series), style="cyan")
            )
    end = follower.watchdog.end
    step = f"step {history.step}{f' of {end}' if end else ''}" if history.step >= 0 else "nothing logged yet"
    parts: list[RenderableType] = [
        Text(f"{visible(log.name if log else follower.path.name)}  {step}", style="bold"),
        table,
    ]
    if problem:
        parts.append(Text(visible(problem), style="yellow"))
    host = host_of(log) if log else None
    for finding in follower.watchdog.worst():
        parts += [Text(), heading(finding, follower.watchdog.first_step(finding.kind) or 0), Text(finding.summary)]
        parts.append(remedies(finding.remedies[:1], host))
    return Group(*parts)


def sparkline(series: Series) -> str:
    """The series in one line of blocks, from its least to its greatest value, means of equal parts of it."""
    size = min(WIDTH, len(series))
    parts = [series.values[i * len(series) // size : (i + 1) * len(series) // size].mean() for i in range(size)]
    low, high = min(parts), max(parts)
    steps = [0 if high == low else int((value - low) / (high - low) * (len(BLOCKS) - 1) + 0.5) for value in parts]
    return "".join(BLOCKS[step] for step in steps)
