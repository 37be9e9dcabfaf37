"""CodeGrader: verdicts on untrusted code, from hidden calls whose expected values never leave this process."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from entrostat.grading.judging import AnyTask, Job, Tests, prepare
from entrostat.grading.sandbox import Limits
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import Failure, IsolationError, Worker, WorkerError, describe, locate_packages, refusal

_ATTEMPTS = 3
_NEVER_REMEMBERED = (Outcome.TIMEOUT, Outcome.INFRASTRUCTURE_ERROR)


class CodeGrader:
    """Runs completions in isolated interpreters and judges what they answer.

    A grading sends the code and then one call's input at a time to a fresh sandboxed interpreter, compares each
    answer here with exact types (see entrostat.grading.wire.matches), and passes only if every call was answered
    right. A fork server for each worker makes this cheap. Use as a context manager, or call close().

    workers: gradings that run at once. timeout: seconds of wall time for one grading, the code's top level and all
    calls together. memory: bytes of address space. output: bytes of one answer's text. isolation: "full" raises
    IsolationError where the machine refuses a layer, "best-effort" warns once and goes on without it. memo: number of
    verdicts to remember by task content and code, 0 for none; timeouts and infrastructure errors are never
    remembered, and code whose answers vary from run to run keeps its first verdict while it is remembered. packages:
    import names of installed third-party packages that the code may use; all others are hidden.

    Raises ValueError for a setting out of range, IsolationError as above, WorkerError if no worker can be started.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout: float = 3.0,
        memory: int = 1 << 30,
        output: int = 1 << 20,
        isolation: Literal["full", "best-effort"] = "full",
        memo: int = 0,
        packages: Sequence[str] = (),
    ) -> None:
        _require("workers", workers, workers >= 1, "at least 1")
        _require("timeout", timeout, 0 < timeout < float("inf"), "a positive number of seconds")
        _require("memory", memory, memory >= 128 << 20, "at least 134217728 bytes (128 MiB)")
        _require("output", output, 1024 <= output <= 1 << 30, "1024 to 1073741824 bytes")
        _require("isolation", isolation, isolation in ("full", "best-effort"), "'full' or 'best-effort'")
        _require("memo", memo, memo >= 0, "0 or more verdicts")
        self._limits = Limits(timeout=timeout, memory=memory, output=output)
        self._packages = locate_packages(packages)
        self._isolation = isolation
        self._memo_size = memo
        self._memo: OrderedDict[tuple[str, str | None], Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._grading = threading.Lock()
        self._workers: list[Worker | None] = []
        try:
            for _ in range(workers):
                self._workers.append(worker := self._new_worker())
        except BaseException:
            self.close()
            raise
        if worker.missing:
            warnings.warn(f"grading without {describe(worker.missing)}: code may harm this machine", stacklevel=2)

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. A closed grader cannot be used again."""
        while self._workers:
            if worker := self._workers.pop():
                worker.close()

    def grade(self, pairs: Iterable[tuple[AnyTask, str]], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order.

        deadline: seconds for the whole batch; what is not begun by then is an infrastructure error. An exception such
        as KeyboardInterrupt ends the batch after the gradings in progress. A worker that dies is replaced and its
        grading tried again, twice at most, then it is an infrastructure error. Raises TaskError for a test that is
        not plain data, before grading any.
        """
        if not self._workers:
            raise ValueError("this grader is closed; make a new CodeGrader")
        jobs = prepare(pairs)
        until = None if deadline is None else time.monotonic() + deadline
        verdicts: list[Verdict] = [
            Verdict(Outcome.INFRASTRUCTURE_ERROR, "not graded before the batch's deadline")
        ] * len(jobs)
        # Repeats come last, when the memo knows the verdicts of the first ones.
        first = {job.key: index for index, job in reversed(list(enumerate(jobs)))}
        order = iter(sorted(range(len(jobs)), key=lambda index: first[jobs[index].key] != index))
        stop = threading.Event()

        def drain(slot: int) -> None:
            while not stop.is_set() and (until is None or time.monotonic() < until):
                with self._lock:
                    index = next(order, None)
                if index is None:
                    return
                verdicts[index] = self._judge(slot, jobs[index])

        with self._grading, ThreadPoolExecutor(len(self._workers)) as pool:
            try:
                for finished in [pool.submit(drain, slot) for slot in range(len(self._workers))]:
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
        worker = Worker(self._limits, self._packages)
        if self._isolation == "full" and worker.missing:
            worker.close()
            raise IsolationError(refusal(worker.missing))
        return worker

    def _judge(self, slot: int, job: Job) -> Verdict:
        if job.code is None:
            return Verdict(Outcome.NO_CODE, "the completion contains no code")
        with self._lock:
            if remembered := self._memo.get(job.key):
                self._memo.move_to_end(job.key)
                return remembered
        verdict = self._try_to_grade(slot, job.tests, job.code)
        if verdict.outcome not in _NEVER_REMEMBERED and self._memo_size:
            with self._lock:
                self._memo[job.key] = verdict
                if len(self._memo) > self._memo_size:
                    self._memo.popitem(last=False)
        return verdict

    def _try_to_grade(self, slot: int, tests: Tests, code: str) -> Verdict:
        start = time.monotonic()
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                worker = self._workers[slot] = self._workers[slot] or self._new_worker()
                return Verdict(Outcome.PASSED, tests.judge(worker, code), time.monotonic() - start)
            except Failure as failure:
                return Verdict(failure.outcome, failure.detail, time.monotonic() - start)
            except WorkerError as error:
                reason = str(error)
                if broken := self._workers[slot]:
                    broken.close()
                    self._workers[slot] = None
        return Verdict(Outcome.INFRASTRUCTURE_ERROR, reason, time.monotonic() - start)


def _require(name: str, value: object, valid: bool, allowed: str) -> None:
    if not valid:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")
