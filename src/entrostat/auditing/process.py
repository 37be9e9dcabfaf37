"""The user's function in a process of its own: every call has a limit, and nothing that it does ends this process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from entrostat.auditing.examples import AuditError, Example
from entrostat.auditing.signatures import Form

Failure = Literal["raised", "contract", "ended", "hung"]
STARTING = 120.0  # seconds that importing the function's module may take


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one call.

    rewards: one per completion, None for "does not apply"; empty if the call failed. failure: the function raised, gave
    what is not a list of rewards, ended its process, or did not answer in time; detail: how. seconds: of processor
    time, its child processes included. ran: the completion ran as code inside the function's own process.
    """

    rewards: tuple[float | None, ...] = ()
    failure: Failure | None = None
    detail: str = ""
    seconds: float = 0.0
    ran: bool = False


class Reward:
    """A reward function, called in a child process that is started again after it died or hung.

    reference: MODULE:NAME or FILE.py:NAME. timeout: seconds of wall time per call. signature: a name of
    entrostat.auditing.signatures, or None to detect it. hash_seed: PYTHONHASHSEED of the child. form: plain or chat
    completions, set by the caller. Raises AuditError if it cannot be loaded. Use as a context manager.
    """

    def __init__(self, reference: str, timeout: float, signature: str | None = None, hash_seed: int = 0) -> None:
        self.reference, self.timeout, self.hash_seed = reference, timeout, hash_seed
        self.form: Form = "plain"
        self.faults: list[str] = []
        self._wanted = signature or "auto"
        self._child: subprocess.Popen[bytes] | None = None
        self._start()

    def __enter__(self) -> Reward:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child and all that it started."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._requests)
        os.close(self._replies)
        self._child = None

    def call(self, batch: Sequence[tuple[Example, Any]]) -> Answer:
        """The rewards of (example, completion) pairs, given to the function as one batch."""
        if self._child is None:
            self._start()
        request = {"batch": [[example.fields, completion] for example, completion in batch], "form": self.form}
        said = self._exchange(json.dumps(request).encode() + b"\n", self.timeout * max(1, len(batch)))
        if said is None:
            return self._lost(self.timeout * max(1, len(batch)))
        if "error" in said:
            return Answer((), said["kind"], said["error"], said["seconds"], said["ran"])
        return Answer(tuple(said["rewards"]), None, "", said["seconds"], said["ran"])

    def _start(self) -> None:
        theirs, self._requests = os.pipe()
        self._replies, back = os.pipe()
        self._buffer, self._hung = b"", False
        command = [sys.executable, "-m", "entrostat.auditing.child", self.reference, str(theirs), str(back)]
        self._child = subprocess.Popen(
            [*command, self._wanted],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs, back),
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": str(self.hash_seed)},
        )
        os.close(theirs)
        os.close(back)
        os.set_blocking(self._requests, False)
        said = self._exchange(b"", STARTING)
        if said is None or "error" in said:
            reason = said["error"] if said else self._lost(STARTING).detail
            self.close()
            raise AuditError(f"{self.reference}: {reason}")
        self.signature: str = said["signature"]
        self.faults = said["faults"]

    def _lost(self, limit: float) -> Answer:
        assert self._child is not None
        if self._hung:
            answer = Answer((), "hung", f"no answer within {limit:g} s", limit)
        else:
            try:
                answer = Answer((), "ended", f"its process ended with status {self._child.wait(5)}")
            except subprocess.TimeoutExpired:
                answer = Answer((), "ended", "its process closed its channel")
        self.close()
        return answer

    def _exchange(self, request: bytes, seconds: float) -> dict[str, Any] | None:
        """The reply to a request; None if the time is over (`_hung`) or the child is gone."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                self._hung = True
                return None
            readable, writable, _ = select.select([self._replies], [self._requests] if request else [], [], left)
            try:
                if writable:
                    request = request[os.write(self._requests, request[:65536]) :]
                if readable:
                    received = os.read(self._replies, 1 << 16)
                    if not received:
                        return None
                    self._buffer += received
            except BrokenPipeError:
                return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            said = json.loads(line)
        except ValueError:
            return None
        return said if isinstance(said, dict) else None
