"""The screen of `watch`: the run's last figures, drawn small, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from entrostat.cli.findings import heading, remedies
from entrostat.cli.screen import console, visible
from entrostat.diagnose import Finding, LogError, Series
from entrostat.diagnose.follow import Follower
from entrostat.diagnose.notify import Sender, sentence
from entrostat.diagnose.settings import host_of

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
REST = 20  # a look over a long log takes a second: rest for that many times as long as it took
SHOWN = ("heldout", "reward", "entropy", "clip_low", "clip_high", "clip", "length", "truncated", "kl", "grad_norm")


def follow(path: Path, end: int | None, until: str | None, senders: Sequence[Sender], every: float, once: bool) -> int:
    """Follow a log until it is interrupted; returns 2 at a finding of the severity `until`, else 0.

    A log that is not there yet is waited for, unless `once`. LogError: with `once`, it cannot be read.
    """
    follower = Follower(path, end)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            problem, began = None, time.monotonic()
            try:
                new = follower.look()
            except LogError as error:
                if once:
                    raise
                new, problem = [], str(error)
            failures = [failure for finding in new for sender in senders if (failure := sender.send(finding))]
            live.update(screen(follower, problem or next(iter(failures), None)), refresh=True)
            if not console.is_terminal:
                for finding in new:
                    console.print(visible(sentence(finding, path.name)), markup=False, soft_wrap=True)
            if any(_as_bad_as(finding, until) for finding in new):
                return 2
            if once:
                return 0
            time.sleep(max(every, REST * (time.monotonic() - began)))


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


def _as_bad_as(finding: Finding, until: str | None) -> bool:
    return until == "warning" or (until == "critical" and finding.severity == "critical")
