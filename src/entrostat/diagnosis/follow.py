"""Following a log that is being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from entrostat.diagnosis.detectors import DETECTORS, Detector
from entrostat.diagnosis.reading import Log, LogError, read_log
from entrostat.diagnosis.watchdog import Watchdog
from entrostat.runs.finding import Finding


class Follower:
    """Reads a log again whenever it has changed, and gives the watchdog what is new.

    Whole files are read again, for some formats are rewritten as a whole. A log that has become shorter, or whose rows
    have changed, is a run begun anew or taken up from a checkpoint: it is diagnosed from its first row.
    """

    def __init__(
        self,
        path: str | Path,
        end: int | None = None,
        columns: Mapping[str, Sequence[str]] | None = None,
        detectors: Sequence[Detector] = DETECTORS,
    ) -> None:
        self.path, self.end, self.columns, self.detectors = Path(path), end, columns, detectors
        self.log: Log | None = None
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
            return []
        self._seen = files
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
        return new

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


def _name(finding: Finding) -> tuple[str, str, int]:
    return finding.kind, finding.severity, finding.step
