"""The screen of `watch`: the run's last figures, drawn small, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from entrostat.cli.findings import heading, remedies
from entrostat.cli.screen import console, visible
from entrostat.diagnosis import SEVERITIES, Detector, Finding, LogError, Series
from entrostat.diagnosis.follow import Follower
from entrostat.diagnosis.hosts import host_of
from entrostat.diagnosis.notify import Sender, sentence

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
REST = 20  # a look over a long log takes a second: rest for that many times as long as it took
SHOWN = ("heldout", "reward", "entropy", "clip_low", "clip_high", "clip", "length", "truncated", "kl", "grad_norm")


def follow(
    logs: Sequence[tuple[Path, Sequence[Sender]]],
    end: int | None,
    columns: Mapping[str, Sequence[str]],
    detectors: Sequence[Detector],
    until: str | None,
    every: float,
    patience: float,
    once: bool,
) -> bool:
    """Follow logs until interrupted, or until a finding of the severity `until`; returns whether there was one.

    A log that is missing, cannot be read or has nothing in it that is understood is waited for, and said to be so.
    LogError: it is still so after `patience` seconds, or at once with `once`.
    """
    watched = [_Watched(Follower(path, end, columns, detectors), senders) for path, senders in logs]
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            began = time.monotonic()
            new = [finding for each in watched for finding in each.look(live, 0.0 if once else patience)]
            live.update(Group(*(screen(each.follower, each.problem) for each in watched)), refresh=True)
            if until and any(as_bad_as(finding, until) for finding in new):
                return True
            if once:
                return False
            time.sleep(max(every, REST * (time.monotonic() - began)))


@dataclass
class _Watched:
    """One log that is followed, and where its findings go. problem: what was wrong at the last look."""

    follower: Follower
    senders: Sequence[Sender]
    problem: str | None = None
    blind_since: float | None = None

    def look(self, live: Live, patience: float) -> list[Finding]:
        """The new findings, which are sent and printed. LogError: nothing could be read for `patience` seconds."""
        new, blind = _look(self.follower)
        now = time.monotonic()
        if blind is None:
            self.blind_since = None
        else:
            self.blind_since = self.blind_since or now
            if now - self.blind_since >= patience:
                raise LogError(blind)
        failures = [failure for finding in new for sender in self.senders if (failure := sender.send(finding))]
        problem = blind or next(iter(failures), None)
        if not live.console.is_terminal:
            sentences = [sentence(finding, self.follower.path.name) for finding in new]
            for line in [*sentences, *failures, *([blind] if blind and blind != self.problem else [])]:
                live.console.print(visible(line), markup=False, soft_wrap=True)
        self.problem = problem
        return new


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
    host = host_of(name for own in log.used.values() for name in own) if log else None
    for finding in [*([follower.stalled] if follower.stalled else []), *follower.watchdog.standing()]:
        parts += [Text(), heading(finding), Text(finding.summary)]
        parts.append(remedies(finding.remedies[:1], host))
    return Group(*parts)


def sparkline(series: Series) -> str:
    """The series in one line of blocks, from its least to its greatest value, means of equal parts of it."""
    size = min(WIDTH, len(series))
    parts = [series.values[i * len(series) // size : (i + 1) * len(series) // size].mean() for i in range(size)]
    low, high = min(parts), max(parts)
    steps = [0 if high == low else int((value - low) / (high - low) * (len(BLOCKS) - 1) + 0.5) for value in parts]
    return "".join(BLOCKS[step] for step in steps)
