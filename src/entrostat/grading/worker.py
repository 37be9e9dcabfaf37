"""The grader's side of a fork server: starting it, talking to the interpreters that it forks, and how they end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hmac
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from entrostat.errors import EntrostatError
from entrostat.grading import wire
from entrostat.grading.sandbox import REMEDIES, Limits
from entrostat.grading.verdict import Outcome

# The fork server imports its own modules of this package without the package itself, which would load torch.
_BOOT = """
import sys, types
sys.path.pop(0)
for name, path in (("entrostat", sys.argv[1]), ("entrostat.grading", sys.argv[1] + "/grading")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from entrostat.grading.fork_server import main
main(int(sys.argv[2]))
"""
_PACKAGE = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0
_SEAL_SECONDS = 10.0
_END_SECONDS = 10.0
# An assertion script takes two interpreters.
_SPARES = 2
# The out-of-memory killer takes a process that grew; the code did not cause a kill that follows less growth.
_SUSPECT_GROWTH_KIB = 32 << 10


class IsolationError(EntrostatError, RuntimeError):
    """This machine refuses a layer of the isolation; the message names it and the remedy."""


class WorkerError(EntrostatError, RuntimeError):
    """The fork server or the machine failed; says nothing about the code under test."""


class SuspectError(WorkerError):
    """A failure of the machine that code can have a hand in; `outcome` is the code's if it happens again and again."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Failure(Exception):  # noqa: N818  (an outcome on its way to a verdict, not a fault of the grader)
    """The code under test ended the grading with an outcome other than a pass.

    starved: it ran out of time without having used half of it: it slept, or the machine was too busy to run it.
    """

    def __init__(self, outcome: Outcome, detail: str, starved: bool = False) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.starved = starved


class Raised(Failure):
    """The code raised an exception. text: of its classes' names and its message, as the code's interpreter gave it."""

    def __init__(self, text: str) -> None:
        said = text
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(text):
                case [[str(name), *_], str(message)]:
                    said = f"{name.rpartition('.')[2]}: {message}"
        super().__init__(Outcome.RUNTIME_ERROR, said[:500])
        self.text = text


class Worker:
    """One fork server. Used by one thread at a time; close() ends its processes.

    While a grading runs, interpreters for the next one are forked and isolated, which is mostly waiting.

    packages: third-party packages that the code may import, by name, each with its folder or file. secret: what seeds
    are derived from, None for the installation's.
    """

    def __init__(self, limits: Limits, packages: Mapping[str, str], secret: bytes | None = None) -> None:
        self.limits = limits
        self._secret = secret
        self._count = 0
        self._spares: deque[Interpreter] = deque()
        self._control, self._process = _launch()
        try:
            parents = {os.path.dirname(place) for place in packages.values()}
            path = sorted(parents, key=lambda parent: sys.path.index(parent) if parent in sys.path else len(sys.path))
            settings = {"limits": dataclasses.asdict(limits), "packages": dict(packages), "path": path}
            self._control.settimeout(_START_SECONDS)
            hello = self._command(settings)
            self._control.settimeout(_END_SECONDS)
        except BaseException:
            self.close()
            raise
        self.missing: dict[str, str] = hello["missing"]

    def close(self) -> None:
        """End the fork server and every grading in it; a second call does nothing."""
        self._control.close()
        while self._spares:
            self._spares.popleft().hang_up()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start(self) -> Interpreter:
        """A fresh sandboxed interpreter, whose time runs from when it is entered; WorkerError if there is none."""
        # What is not isolated in full may see what an earlier grading left, so it is begun when that one has ended.
        while len(self._spares) <= (0 if self.missing else _SPARES):
            self._spares.append(self._fork())
        return self._spares.popleft()

    def _fork(self) -> Interpreter:
        self._count += 1
        try:
            channel, remote = socket.socketpair()
        except OSError as error:
            raise WorkerError(f"no channel to a grading: {error}") from error
        with remote:
            try:
                socket.send_fds(self._control, [json.dumps({"start": self._count}).encode()], [remote.fileno()])
            except OSError as error:
                channel.close()
                raise WorkerError(f"the fork server is gone: {error}") from error
        return Interpreter(self, self._count, channel)

    def seed(self, *parts: str) -> int:
        """A seed for a script's random tests: the same for the same parts and secret, which the code cannot read."""
        key = installation_secret() if self._secret is None else self._secret
        text = json.dumps(parts).encode()
        return int.from_bytes(hmac.digest(key, text, "sha256"), "big")

    def end(self, key: int, wait: bool) -> dict[str, Any]:
        """Kill an interpreter's processes; how it ended. SuspectError if they take too long to die."""
        return self._command({"end": key, "wait": wait})

    def kill(self, key: int) -> None:
        """Kill an interpreter's processes, and wait neither for their end nor for an answer."""
        try:
            self._control.send(json.dumps({"kill": key}).encode())
        except OSError as error:
            raise WorkerError(f"the fork server is gone: {error}") from error

    def _command(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            self._control.send(json.dumps(command).encode())
            packet = self._control.recv(1 << 16)
        except TimeoutError:
            seconds = self._control.gettimeout()
            raise SuspectError(Outcome.TIMEOUT, f"the fork server does not answer within {seconds:g} s") from None
        except OSError as error:
            raise WorkerError(f"the fork server does not answer: {error}") from error
        if not packet:
            raise WorkerError("the fork server ended unexpectedly")
        reply: dict[str, Any] = json.loads(packet)
        if "error" in reply:
            raise WorkerError(f"the fork server could not isolate a grading: {reply['error']}")
        return reply


class Interpreter:
    """A sandboxed interpreter as the grader sees it. A context manager: leaving it kills the interpreter."""

    def __init__(self, worker: Worker, key: int, channel: socket.socket) -> None:
        self._worker = worker
        self._key = key
        self._channel = channel
        self._deadline = 0.0
        self._ended = False

    def __enter__(self) -> Interpreter:
        try:
            self._expect_seal()
        except BaseException:
            self._end(wait=False)
            raise
        self._deadline = time.monotonic() + self._worker.limits.timeout
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._ended:
            self.hang_up()
            # What the code answered has been judged: a failure of the fork server now concerns the next grading.
            try:
                self._worker.kill(self._key)
            except WorkerError:
                self._worker.close()

    def hang_up(self) -> None:
        """Close the channel; the interpreter ends, or waits to be killed."""
        self._ended = True
        self._channel.close()

    def load(self, code: str) -> None:
        """Run the code's top level; Failure if it does not compile or raises."""
        self._ask("load", wire.encode(code), "loaded")

    def call(self, request: str) -> str:
        """Call a function of the code: the text of (name, args, kwargs), answered with the text of its result."""
        return self.ask("call", request)

    def ask(self, kind: str, request: str) -> str:
        """The text of a call's or an evaluated expression's result."""
        return self._ask(kind, request, "answer")

    def run(self, preamble: str, code: str, stdin: str) -> str:
        """Run the code as a program on a text; what it printed."""
        return self._ask("run", wire.encode((preamble, code, stdin)), "answer")

    def judge(self, script: str, preamble: str, name: str, seed: int, answer: Callable[[str], str]) -> None:
        """Run assertions about the function `name`, whose calls `answer` answers; Failure if one does not hold.

        What the code raises is raised in the script, which may be a test that it does. seed: of the script's `random`.
        """
        raised: Raised | None = None
        status, text = self._exchange("judge", wire.encode((script, preamble, name, seed)))
        while status == "asks":
            try:
                raised, kind, reply = None, "reply", answer(text)
            except Raised as exception:
                raised, kind, reply = exception, "raise", exception.text
            status, text = self._exchange(kind, reply)
        if raised and status == "refuted":
            raise raised
        if status == "unfit":
            raise Failure(Outcome.UNFIT_TASK, f"the assertions cannot be run: {text[:500]}")
        if status != "upheld":
            raise failure_of(status, text)

    def _expect_seal(self) -> None:
        # Before the code is sent, whatever goes wrong is the machine's fault; afterwards, the code's.
        try:
            _, body = wire.receive(self._channel, 4096, time.monotonic() + _SEAL_SECONDS)
        except (OSError, EOFError, wire.FrameTooLargeError) as error:
            raise WorkerError(f"a grading could not be started: {error!r}") from error
        status, _, text = body.decode().partition("\n")
        if status != "sealed":
            raise WorkerError(f"a grading could not be isolated: {text}")

    def _ask(self, kind: str, text: str, expected_status: str) -> str:
        status, reply = self._exchange(kind, text)
        if status != expected_status:
            raise failure_of(status, reply)
        return reply

    def _exchange(self, kind: str, text: str) -> tuple[str, str]:
        """Send a request; the status and the text of the reply to it."""
        nonce = secrets.token_bytes(wire.NONCE_BYTES)
        try:
            self._channel.settimeout(max(self._deadline - time.monotonic(), 1e-3))
            wire.send(self._channel, nonce, f"{kind}\n{text}".encode())
            answered, body = wire.receive(self._channel, self._worker.limits.output + 64, self._deadline)
        except TimeoutError:
            used = self._end(wait=False)["cpu"]
            limit = self._worker.limits.timeout
            raise Failure(Outcome.TIMEOUT, f"no answer within {limit:g} s", starved=used < limit / 2) from None
        except wire.FrameTooLargeError as error:
            raise Failure(Outcome.OUTPUT_LIMIT, str(error)) from None
        except (OSError, EOFError):
            raise self._explain_end() from None
        if not secrets.compare_digest(answered, nonce):
            raise Failure(Outcome.WRONG, "an answer that does not belong to its call")
        status, _, reply = body.decode(errors="replace").partition("\n")
        return status, reply

    def _explain_end(self) -> Failure:
        """Why the interpreter ended. Only an end that the code cannot cause is the machine's fault."""
        report = self._end(wait=True)
        code = report["code"]
        if not report["ended"]:
            return Failure(Outcome.RUNTIME_ERROR, "the code closed the grader's channel")
        if code == -signal.SIGKILL:
            if report["charged"] < self._worker.limits.cpu_seconds:
                if report["grown"] > _SUSPECT_GROWTH_KIB:
                    raise SuspectError(
                        Outcome.MEMORY, f"killed from outside, {report['grown']} KiB larger than at first"
                    )
                raise WorkerError("the grading was killed from outside")
            return Failure(Outcome.TIMEOUT, f"more than {self._worker.limits.cpu_seconds} s of CPU time")
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        return Failure(Outcome.RUNTIME_ERROR, f"the code ended its interpreter {how}")

    def _end(self, wait: bool) -> dict[str, Any]:
        self.hang_up()
        return self._worker.end(self._key, wait)


def _launch() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a fork server: its control socket and its process; WorkerError if the machine refuses."""
    # A fixed hash seed makes the order of sets, and with it every verdict, the same in every run.
    # A package that starts threads of its own would keep the fork server out of a new user namespace.
    # Whole numbers of any length can be printed; the limit on CPU time is limit enough.
    # An arena of malloc for each thread would reserve 64 MiB of the address space that the code may have.
    environment = {
        "PYTHONHASHSEED": "0",
        "PYTHONINTMAXSTRDIGITS": "0",
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    with contextlib.ExitStack() as undo:
        try:
            control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(control.close)
            with remote:
                process = subprocess.Popen(
                    [sys.executable, "-s", "-S", "-c", _BOOT, str(_PACKAGE), str(remote.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=environment,
                    pass_fds=[remote.fileno()],
                    # Signals of a terminal are for the trainer: code under test would seem to end by its own doing.
                    start_new_session=True,
                )
        except OSError as error:
            raise WorkerError(f"a fork server could not be started: {error}") from error
        undo.pop_all()
    return control, process


_OUTCOMES = {
    "syntax error": Outcome.SYNTAX_ERROR,
    "runtime error": Outcome.RUNTIME_ERROR,
    "memory": Outcome.MEMORY,
    "output limit": Outcome.OUTPUT_LIMIT,
}


def failure_of(status: str, text: str) -> Failure:
    """What an unexpected reply means; a status that untrusted code made up is a wrong answer."""
    if status == "raised":
        return Raised(text)
    return Failure(_OUTCOMES.get(status, Outcome.WRONG), text[:500])


def locate_packages(names: Iterable[str]) -> dict[str, str]:
    """Where installed packages lie, by import name; ValueError for one that is not installed."""
    found = {}
    for name in names:
        spec = importlib.util.find_spec(name)
        place = spec and (next(iter(spec.submodule_search_locations or ()), None) or spec.origin)
        if not place:
            raise ValueError(f"packages names {name!r}, which is not installed; install it with pip")
        found[name] = place
    return found


def refusal(missing: dict[str, str]) -> str:
    """The words that refuse to grade in full isolation: every missing layer, and the remedy."""
    remedies = "; ".join(dict.fromkeys(REMEDIES[name] for name in missing))
    return (
        f"isolation is 'full', but this machine refuses {describe(missing)}. Remedy: {remedies}; "
        "or choose isolation='best-effort' to grade without"
    )


def describe(missing: dict[str, str]) -> str:
    """The missing layers in one line, each with the kernel's reason."""
    return ", ".join(f"{name} ({reason})" for name, reason in missing.items())


_BYTES = 32


@functools.cache
def installation_secret() -> bytes:
    """The secret in random-tests.key of this user's state folder ($XDG_STATE_HOME or ~/.local/state), made if missing.

    Copy the file to have the same random tests on another machine. Where it cannot be kept, a warning says so and the
    secret is this process's own.
    """
    try:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "entrostat"
        return read_or_make(folder / "random-tests.key")
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"random tests in assertion scripts will differ from run to run: their secret cannot be kept ({error}); "
            "set XDG_STATE_HOME to a folder that can be written, or pass secret=... to the grader",
            stacklevel=2,
        )
        return secrets.token_bytes(_BYTES)


def read_or_make(path: Path) -> bytes:
    """The secret in a file, made if it is missing; of processes that make it at once, all get the same."""
    with contextlib.suppress(FileNotFoundError):
        return _checked(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    return _checked(path)


def _checked(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) < _BYTES:
        raise OSError(
            f"{path} holds {len(secret)} bytes, not a secret of at least {_BYTES}; remove it to have a new one"
        )
    return secret
