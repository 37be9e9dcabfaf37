"""Following a log that is being written, and noticing when it no longer is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from entrostat.diagnosis.detectors import DETECTORS, Detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.reading import Log, LogError, read_log
from entrostat.diagnosis.remedies import STALLED
from entrostat.diagnosis.statistics import median
from entrostat.diagnosis.watchdog import Watchdog
from entrostat.runs.finding import Finding


class Follower:
    """Reads a log again whenever it has changed, and gives the watchdog what is new.

    A log that has stopped growing long before its pace lets expect the next row is a finding, `stalled`; see `Pace`.
    clock: the time, in seconds since 1970, as files have it.

    Whole files are read again, for some formats are rewritten as a whole. A log that has become shorter, or whose rows
    have changed, is a run begun anew or taken up from a checkpoint: it is diagnosed from its first row.
    """

    def __init__(
        self,
        path: str | Path,
        end: int | None = None,
        columns: Mapping[str, Sequence[str]] | None = None,
        detectors: Sequence[Detector] = DETECTORS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path, self.end, self.columns, self.detectors = Path(path), end, columns, detectors
        self.log: Log | None = None
        self.stalled: Finding | None = None
        self.clock, self.pace = clock, Pace()
        self.watchdog = Watchdog(end, detectors)
        self._known: set[tuple[str, str, int]] = set()
        self._seen: tuple[tuple[str, int, int], ...] = ()

    def look(self) -> list[Finding]:
        """The findings that are new since the last look. LogError: the log cannot be read."""
        if self.path == Path("-") or (self.path.exists() and not (self.path.is_file() or self.path.is_dir())):
            raise LogError(
                f"{self.path}: a pipe, a socket or a device, which cannot be read again and again; write the log to a "
                "file, with tee for example"
            )
        files = self._files()
        if self.log is not None and files == self._seen:
            return self._overdue()
        self._seen = files
        reached = self.watchdog.history.step
        before, self.log = self.log, read_log(self.path, self.columns)
        done = len(before.rows) - 1 if before else 0  # the last row may still have been growing
        if before is None or done < 0 or self.log.rows[:done] != before.rows[:done]:
            self.watchdog, done = Watchdog(self.end or self.log.end, self.detectors), 0
        elif self.log.rows[done : done + 1] == before.rows[done:]:
            done += 1
        for step, values in self.log.rows[done:]:
            self.watchdog.observe(step, values)
        new = [finding for finding in self.watchdog.findings if _name(finding) not in self._known]
        self._known.update(map(_name, new))
        if self.watchdog.history.step != reached:
            self.pace.grew(max(changed for _, _, changed in files) / 1e9, first=before is None)
            self.stalled = None
        return new + self._overdue()

    def _overdue(self) -> list[Finding]:
        """The finding that the log has stopped growing, once."""
        history, end = self.watchdog.history, self.watchdog.end
        if self.stalled or history.step < 0 or (end and history.step >= end):
            return []
        self.stalled = self.pace.overdue(self.clock(), history)
        return [self.stalled] if self.stalled else []

    def _files(self) -> tuple[tuple[str, int, int], ...]:
        """Every file of the log with its size and time; checkpoints and samples aside, which are no part of it."""
        files = [self.path] if not self.path.is_dir() else self.path.rglob("*")
        found = []
        for file in files:
            if {"checkpoints", "samples"}.intersection(file.parts):
                continue
            with suppress(OSError):  # a file that is gone since it was listed, or that may not be seen
                status = file.stat()
                if S_ISREG(status.st_mode):
                    found.append((str(file), status.st_size, status.st_mtime_ns))
        return tuple(sorted(found))


class Pace:
    """How long rows of a log take to come, and whether the next one is overdue.

        idle > max(`LEAST`, `FACTOR` x usual, `LONGEST` x the longest wait so far)

    usual: the median of the last times between two changes of the file, or, before three of these were seen, the time
    of a step that the log has, times the steps between two rows. Checkpoints and evaluations make single waits long, so
    that a wait has to be long beside these too.
    """

    LEAST, FACTOR, LONGEST = 120.0, 10.0, 3.0

    def __init__(self) -> None:
        self.waits: deque[float] = deque(maxlen=50)
        self.changed: float | None = None
        self.seen_growing = False

    def grew(self, at: float, first: bool) -> None:
        """Rows were written at `at`, seconds since 1970. first: they are those that the log had when it was opened."""
        if not first:
            self.seen_growing = True
            if self.changed is not None and at > self.changed:
                self.waits.append(at - self.changed)
        self.changed = at

    def overdue(self, now: float, history: History) -> Finding | None:
        """The finding, or None: a warning for a log that was seen growing, a note for one that may have ended."""
        usual = self._usual(history)
        if usual is None or self.changed is None:
            return None
        idle, longest = now - self.changed, max(self.waits, default=usual)
        if idle <= max(self.LEAST, self.FACTOR * usual, self.LONGEST * longest):
            return None
        return Finding(
            kind="stalled",
            severity="warning" if self.seen_growing else "note",
            step=history.step,
            onset=history.step,
            first_step=history.step,
            summary=(
                f"Nothing has been logged for {_spoken(idle)} since step {history.step}, where a row usually takes "
                f"{_spoken(usual)}: the run hangs, was killed, or has ended."
            ),
            evidence={"idle_seconds": idle, "usual_seconds": usual, "longest_seconds": longest},
            columns=("step_time",),
            remedies=STALLED,
        )

    def _usual(self, history: History) -> float | None:
        if len(self.waits) >= 3:
            return sorted(self.waits)[len(self.waits) // 2]
        times, steps = history.series("step_time").values, history.series("step_time").steps
        if len(times) < 2:
            return None
        return median(times[-20:]) * median((steps[1:] - steps[:-1])[-20:].astype(float))


def _spoken(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _name(finding: Finding) -> tuple[str, str, int]:
    return finding.kind, finding.severity, finding.step
