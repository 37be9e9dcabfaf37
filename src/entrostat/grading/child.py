"""Inside the sandbox: a fork server, and the interpreter that runs untrusted code and answers calls.

The fork server is a small interpreter of its own (no torch, no third-party package) that imports the usual standard
library modules once. It never sees code, inputs or answers: these travel on a socket between the grader and the
forked interpreter.

What a forked interpreter knows: the code, and one call's input at a time. It does not know any expected value, so
nothing that the code does to it (walking frames, replacing builtins, writing to the socket) can do more than give
another answer.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import types
from typing import Any

from entrostat.grading import wire
from entrostat.grading.sandbox import Limits, Sandbox

_WARM = (
    "array ast bisect calendar cmath collections contextlib copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq io itertools math numbers operator pprint queue random re statistics string struct textwrap "
    "threading time traceback typing unicodedata zlib"
)
_GRACE_SECONDS = 1.0
_REQUEST_LIMIT = 1 << 30


def main(control_descriptor: int) -> None:
    """Serve one worker of the grader over its control socket until the grader closes it."""
    control = socket.socket(fileno=control_descriptor)
    limits = Limits(**json.loads(control.recv(1 << 16)))
    for name in _WARM.split():
        importlib.import_module(name)
    try:
        sandbox = Sandbox(limits)
        sandbox.enter()
    except OSError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    control.send(json.dumps({"missing": sandbox.missing}).encode())
    gc.collect()
    gc.freeze()
    _serve(control, sandbox)
    sandbox.leave()


def _serve(control: socket.socket, sandbox: Sandbox) -> None:
    """Commands, one a packet: {"start": key} with a socket's descriptor; {"end": key, "wait": bool} is answered with
    how it ended.
    """
    running: dict[int, tuple[int, int] | str] = {}
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not packet:
            return
        command = json.loads(packet)
        if "start" in command:
            running[command["start"]] = _start(sandbox, descriptors[0])
            os.close(descriptors[0])
        else:
            report = _end(running.pop(command["end"]), command["wait"])
            control.send(json.dumps(report).encode())


def _start(sandbox: Sandbox, channel: int) -> tuple[int, int] | str:
    """The forked interpreter's process id and its descriptor, or why it could not be forked."""
    try:
        child = sandbox.fork()
    except OSError as error:
        return str(error)
    if child == 0:
        try:
            _interpret(sandbox, socket.socket(fileno=channel))
        finally:
            os._exit(1)
    return child, os.pidfd_open(child)


def _end(grading: tuple[int, int] | str, wait: bool) -> dict[str, Any]:
    """Kill what is left of a grading, after a moment of grace if it seems to have ended by itself, and say how it
    ended.
    """
    if isinstance(grading, str):
        return {"error": grading}
    child, descriptor = grading
    ended = bool(select.select([descriptor], [], [], _GRACE_SECONDS if wait else 0)[0])
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os.close(descriptor)
    _, status, usage = os.wait4(child, 0)
    return {"ended": ended, "code": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}


def _interpret(sandbox: Sandbox, channel: socket.socket) -> None:
    """Seal this process, then load code and answer calls until the grader ends it."""
    try:
        sandbox.seal(channel.fileno())
    except OSError as error:
        wire.send(channel, bytes(wire.NONCE_BYTES), b"unsealed\n" + str(error).encode())
        return
    os.environ.clear()
    sys.argv[:] = ["solution.py"]
    random.seed(0)
    wire.send(channel, bytes(wire.NONCE_BYTES), b"sealed\n")
    solution = types.ModuleType("solution")
    sys.modules["solution"] = solution
    while True:
        nonce, request = wire.receive(channel, _REQUEST_LIMIT)
        status, text = _obey(solution, request.decode())
        if len(text) > sandbox.limits.output:
            status, text = "output limit", f"an answer of {len(text)} bytes, where {sandbox.limits.output} are allowed"
        wire.send(channel, nonce, f"{status}\n{text}".encode(errors="backslashreplace"))


def _obey(solution: types.ModuleType, request: str) -> tuple[str, str]:
    """Carry out "load" (the code follows) or "call" (name, arguments and keywords follow as plain data)."""
    kind, _, text = request.partition("\n")
    try:
        if kind == "load":
            return _load(solution, wire.decode(text))
        name, args, kwargs = wire.decode(text)
        if not hasattr(solution, name):
            return "runtime error", f"the code does not define {name}"
        return "answer", wire.encode(getattr(solution, name)(*args, **kwargs))
    except wire.NotPlainError as error:
        return "not plain", str(error)
    except MemoryError:
        return "memory", "MemoryError"
    except BaseException as error:
        return "runtime error", f"{type(error).__name__}: {error}"


def _load(solution: types.ModuleType, code: str) -> tuple[str, str]:
    try:
        program = compile(code, "<solution>", "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        return "syntax error", f"{type(error).__name__}: {error}"
    exec(program, solution.__dict__)
    return "loaded", ""
