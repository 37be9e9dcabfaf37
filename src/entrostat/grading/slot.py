"""Slot: one place of a grader, its fork server and replacements, and the tolerance for consecutive failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from entrostat.grading.judging import Tests
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import Failure, IsolationError, SuspectError, Worker, WorkerError

# This many failures that code may have caused are attributed to the code, and fewer if there were no others.
_BLAMED_AFTER = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 2.0


class Slot:
    """Grades one job at a time. A fork server that fails is replaced and its grading tried again.

    start_worker: starts a fork server. patience: seconds for which consecutive failures are tolerated.
    """

    def __init__(self, start_worker: Callable[[], Worker], patience: float) -> None:
        self._start_worker = start_worker
        self._patience = patience
        self._failing_since: float | None = None
        self._worker: Worker | None = start_worker()
        self.missing = self._worker.missing

    def close(self) -> None:
        """End the fork server and every grading in it; the next grading starts another."""
        if worker := self._worker:
            self._worker = None
            worker.close()

    def try_out(self) -> None:
        """Raise WorkerError if this machine cannot start a grading."""
        with self._healthy_worker().start():
            pass

    def forgive(self) -> None:
        """Restart the patience."""
        self._failing_since = None

    def grade(self, tests: Tests, code: str, until: float, stop: threading.Event) -> Verdict:
        """The verdict on code; an infrastructure error after `until` (on time.monotonic()), `stop` or the patience."""
        begun = time.monotonic()
        failures = suspicions = 0
        starved = False
        while True:
            try:
                outcome, detail = Outcome.PASSED, tests.judge(self._healthy_worker(), code)
            except Failure as failure:
                if failure.starved and not starved and time.monotonic() < until:
                    starved = True
                    continue
                outcome, detail = failure.outcome, failure.detail
            except (WorkerError, IsolationError) as error:
                self.close()
                failures += 1
                suspicions += isinstance(error, SuspectError)
                if suspicions < _BLAMED_AFTER and self._pause(failures, until, stop):
                    continue
                outcome, detail = Outcome.INFRASTRUCTURE_ERROR, str(error)
                if isinstance(error, SuspectError) and suspicions in (_BLAMED_AFTER, failures):
                    outcome = error.outcome
            if outcome is not Outcome.INFRASTRUCTURE_ERROR:
                self._failing_since = None
            return Verdict(outcome, detail, time.monotonic() - begun)

    def _healthy_worker(self) -> Worker:
        self._worker = self._worker or self._start_worker()
        return self._worker

    def _pause(self, failures: int, until: float, stop: threading.Event) -> bool:
        """Wait before another attempt, longer each time; return whether there is time for one."""
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures, 16)) if failures > 1 else 0.0
        return now + pause < min(until, self._failing_since + self._patience) and not stop.wait(pause)
