"""The fork server: a small interpreter (no torch, no third-party package) that forks one for each grading.

It imports the usual modules of the standard library once. It never sees code, inputs or answers: these travel on a
socket between the grader and the forked interpreter, so no grading can leave anything in it for the next.
"""

from __future__ import annotations

import _socket
import builtins
import gc
import importlib
import json
import os
import random
import resource
import select
import selectors
import signal
import socket
import sys
import time
from _sitebuiltins import Quitter
from typing import Any

from entrostat.grading.interpreter import Conversation, converse
from entrostat.grading.sandbox import Limits, Sandbox

_WARM = (
    "array ast bisect calendar cmath collections contextlib copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq io itertools math numbers operator pprint queue random re statistics string struct textwrap "
    "threading time traceback typing unicodedata zlib"
)
_GRACE_SECONDS = 1.0
_SOCKET_PAIRS = 2
# The process id of a forked interpreter, and its descriptor.
Grading = tuple[int, int]


def main(control_descriptor: int) -> None:
    """Serve one worker of the grader over its control socket until the grader closes it."""
    control = socket.socket(fileno=control_descriptor)
    settings = json.loads(control.recv(1 << 16))
    library = list(sys.path)
    sys.path += settings["path"]
    for name in (*_WARM.split(), *settings["packages"]):
        importlib.import_module(name)
    # Python's site module, left out here because it looks for packages, would have defined these two.
    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    try:
        sandbox = Sandbox(Limits(**settings["limits"]), library, list(settings["packages"].values()))
        sandbox.enter()
    except OSError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    control.send(json.dumps({"missing": sandbox.missing}).encode())
    # What every grading begins with; a fork begins with a copy.
    os.environ.clear()
    sys.argv[:] = ["solution.py"]
    random.seed(0)
    _lent_sockets.lend()
    gc.collect()
    gc.freeze()
    _serve(control, sandbox)
    sandbox.leave()


def _serve(control: socket.socket, sandbox: Sandbox) -> None:
    """Obey commands, one per packet, until the grader closes the control socket.

    {"start": key} comes with a socket's descriptor. {"end": key, "wait": bool} ends a grading and is answered with how
    it ended; {"kill": key} ends one, too, and is not answered.
    """
    running: dict[int, Grading | str] = {}
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not packet:
            return
        match json.loads(packet):
            case {"start": key}:
                running[key] = _start(sandbox, descriptors[0])
                os.close(descriptors[0])
            case {"kill": key}:
                _end(running.pop(key), False)
            case {"end": key, "wait": wait}:
                control.send(json.dumps(_end(running.pop(key), wait)).encode())


def _start(sandbox: Sandbox, channel: int) -> Grading | str:
    """The forked interpreter's process id and its descriptor, or why it could not be forked."""
    try:
        child = sandbox.fork()
    except OSError as error:
        return str(error)
    if child == 0:
        try:
            _interpret(sandbox, channel)
        finally:
            os._exit(1)
    return child, os.pidfd_open(child)


def _end(grading: Grading | str, wait: bool) -> dict[str, Any]:
    """Kill what is left of a grading and say how it ended; wait: first give it a moment to end by itself.

    "cpu" is in seconds; "charged" is what the kernel counts towards the limit on CPU time, which is up to a whole tick
    for each moment of it; "grown" is how much larger than this process it became at most, in KiB.
    """
    if isinstance(grading, str):
        return {"error": grading}
    child, descriptor = grading
    ended = bool(select.select([descriptor], [], [], _GRACE_SECONDS if wait else 0)[0])
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os.close(descriptor)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    charged = time.clock_gettime(_charged_clock(child))
    _, status, usage = os.wait4(child, 0)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ended": ended,
        "code": os.waitstatus_to_exitcode(status),
        "cpu": usage.ru_utime + usage.ru_stime,
        "charged": charged,
        "grown": max(0, usage.ru_maxrss - own),
    }


def _charged_clock(pid: int) -> int:
    """The clock by which the kernel enforces a process's limit on CPU time (CPUCLOCK_PROF in linux/posix-timers.h)."""
    return ~pid << 3


def _interpret(sandbox: Sandbox, channel: int) -> None:
    """Isolate this process, then carry out the grader's requests until it ends the process."""
    channel, *_lent_sockets.descriptors = sandbox.keep([channel, *_lent_sockets.make()])
    conversation = Conversation(socket.socket(fileno=channel), sandbox.limits.output)
    try:
        sandbox.seal()
    except (OSError, ValueError) as error:
        conversation.reply("unsealed", str(error))
        return
    conversation.reply("sealed")
    converse(conversation)


class _LentSockets:
    """A few socket pairs made before the filter forbids more; socket.socketpair hands out copies of them in turn.

    asyncio takes a pair for each event loop.
    """

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def lend(self) -> None:
        """Replace socket.socketpair, and epoll, which the filter forbids too, where asyncio would take it."""
        socket.socketpair = self._copy  # type: ignore[assignment]
        selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc,assignment]

    def make(self) -> list[int]:
        """Make the pairs of a grading; their descriptors."""
        return [end.detach() for _ in range(_SOCKET_PAIRS) for end in _socket.socketpair()]

    def _copy(self, *_: object, **__: object) -> tuple[socket.socket, ...]:
        pair, self.descriptors = self.descriptors[:2], self.descriptors[2:] + self.descriptors[:2]
        return tuple(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(end)) for end in pair)


_lent_sockets = _LentSockets()
