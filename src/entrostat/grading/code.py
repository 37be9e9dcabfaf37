"""CodeGrader: verdicts on untrusted code, from hidden calls whose expected values never leave this process."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from entrostat.grading.judging import AnyTask, Job, JobKey, Tests, prepare
from entrostat.grading.sandbox import Limits
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import (
    Failure,
    IsolationError,
    SuspectError,
    Worker,
    WorkerError,
    describe,
    locate_packages,
    refusal,
)

_NEVER_REMEMBERED = (Outcome.TIMEOUT, Outcome.INFRASTRUCTURE_ERROR)


class CodeGrader:
    """Runs completions in isolated interpreters and judges what they answer.

    A grading sends the code and then one call's input at a time to a fresh sandboxed interpreter, compares each
    answer here with exact types (see entrostat.grading.wire.matches), and passes only if every call was answered
    right. A fork server for each worker makes this cheap. Use as a context manager, or call close().

    workers: gradings that run at once. timeout: seconds of wall time for one grading, the code's top level and all
    calls together. memory: bytes of address space. output: bytes of one answer's text. disk: bytes of a
    grading's files, a program's input and output among them. isolation: "full" raises
    IsolationError where the machine refuses a layer, "best-effort" warns once and continues without it. memo: number of
    verdicts to remember by task content and code, 0 for none; timeouts and infrastructure errors are never
    remembered, and code whose answers vary from run to run keeps its first verdict while it is remembered. packages:
    import names of installed third-party packages that the code may use; all others are hidden. patience: seconds for
    which a worker that fails is replaced and its grading tried again before it is an infrastructure error. secret: what
    the seed of `random` in a task's assertion script is derived from, with the script and the code; None for this
    user's own (entrostat.grading.worker). The same secret gives the same verdicts.

    Raises ValueError for a setting out of range or above a hard limit of this process, IsolationError as above,
    WorkerError if no worker can be started or none can run code.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout: float = 3.0,
        memory: int = 1 << 30,
        output: int = 1 << 20,
        disk: int = 16 << 20,
        isolation: Literal["full", "best-effort"] = "full",
        memo: int = 0,
        packages: Sequence[str] = (),
        patience: float = 30.0,
        secret: bytes | None = None,
    ) -> None:
        _require("workers", workers, workers >= 1, "at least 1")
        _require("timeout", timeout, 0 < timeout < float("inf"), "a positive number of seconds")
        _require("memory", memory, memory >= 128 << 20, "at least 134217728 bytes (128 MiB)")
        _require("output", output, 1024 <= output <= 1 << 30, "1024 to 1073741824 bytes")
        _require("disk", disk, 1 << 20 <= disk <= 1 << 30, "1048576 to 1073741824 bytes")
        _require("isolation", isolation, isolation in ("full", "best-effort"), "'full' or 'best-effort'")
        _require("memo", memo, memo >= 0, "0 or more verdicts")
        _require("patience", patience, 0 <= patience < float("inf"), "0 or more seconds")
        self._limits = Limits(timeout=timeout, memory=memory, output=output, disk=disk).within_hard_limits(workers)
        self._packages = locate_packages(packages)
        self._isolation = isolation
        self._secret = secret
        self._memo_size = memo
        self._memo: OrderedDict[JobKey, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._grading = threading.Lock()
        self._closed = False
        self._stop = threading.Event()
        self._slots: list[Slot] = []
        try:
            for _ in range(workers):
                self._slots.append(Slot(self._new_worker, patience))
            self._slots[0].try_out()
        except BaseException:
            self.close()
            raise
        if missing := self._slots[0].missing:
            warnings.warn(f"grading without {describe(missing)}: code may harm this machine", stacklevel=2)

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. A closed grader cannot be used again.

        From another thread it also ends the batch in progress: what is not begun then is an infrastructure error.
        """
        with self._lock:
            self._closed = True
            self._stop.set()
        with self._grading:
            while self._slots:
                self._slots.pop().close()

    def interrupt(self) -> None:
        """From another thread: end the batch in progress. What is not begun then is an infrastructure error."""
        with self._lock:
            self._stop.set()

    def grade(self, pairs: Iterable[tuple[AnyTask, str]], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order.

        deadline: seconds for the whole batch; what is not begun by then is an infrastructure error. An exception such
        as KeyboardInterrupt ends the batch after the gradings in progress. A worker that dies is replaced and its
        grading tried again for as long as the deadline and `patience` allow; code that ran out of time without having
        used half of it gets one more try. Raises TaskError, before grading any, for a test that is not plain data, and
        for one that nobody could pass because its right answer or its input exceeds this grader's limits.
        """
        jobs = prepare(pairs, self._limits.output, self._limits.disk)
        until = float("inf") if deadline is None else time.monotonic() + deadline
        unbegun = Verdict(Outcome.INFRASTRUCTURE_ERROR, "not graded before the batch's end or deadline")
        verdicts = [unbegun] * len(jobs)
        # Repeats come last, when the memo knows the verdicts of the first ones.
        first = {job.key: index for index, job in reversed(list(enumerate(jobs)))}
        order = iter(sorted(range(len(jobs)), key=lambda index: first[jobs[index].key] != index))

        def drain(slot: Slot) -> None:
            slot.forgive()
            while not stop.is_set() and time.monotonic() < until:
                with self._lock:
                    index = next(order, None)
                if index is None:
                    return
                verdicts[index] = self._judge(slot, jobs[index], until, stop)

        with self._grading:
            with self._lock:
                if self._closed:
                    raise ValueError("this grader is closed; make a new CodeGrader")
                self._stop = stop = threading.Event()
            with ThreadPoolExecutor(len(self._slots)) as pool:
                try:
                    for finished in [pool.submit(drain, slot) for slot in self._slots]:
                        finished.result()
                finally:
                    stop.set()
        return verdicts

    def stream(self, pairs: Iterable[tuple[AnyTask, str]], window: int = 256) -> Iterator[Verdict]:
        """The verdicts of pairs in their order, taking at most `window` pairs ahead of the verdicts that are read."""
        source = iter(pairs)
        while batch := list(itertools.islice(source, window)):
            yield from self.grade(batch)

    def _new_worker(self) -> Worker:
        if sys.platform != "linux":
            raise IsolationError("isolating code takes Linux; run this in a Linux container or use RemoteGrader")
        worker = Worker(self._limits, self._packages, self._secret)
        if self._isolation == "full" and worker.missing:
            worker.close()
            raise IsolationError(refusal(worker.missing))
        return worker

    def _judge(self, slot: Slot, job: Job, until: float, stop: threading.Event) -> Verdict:
        with self._lock:
            if remembered := self._memo.get(job.key):
                self._memo.move_to_end(job.key)
                return remembered
        verdict = job.first_that_compiles(lambda code: slot.grade(job.tests, code, until, stop))
        if verdict.outcome not in _NEVER_REMEMBERED and self._memo_size:
            with self._lock:
                self._memo[job.key] = verdict
                if len(self._memo) > self._memo_size:
                    self._memo.popitem(last=False)
        return verdict


def _require(name: str, value: object, valid: bool, allowed: str) -> None:
    if not valid:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


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
