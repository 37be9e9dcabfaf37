"""RemoteGrader: gradings by a server with SandboxFusion's interface (POST /run_code), for many machines behind one
address.

The server gets the code and the inputs and sends back answers; expected values stay here, and answers compare as in
CodeGrader. Isolation is the server's: so it decides what was its own failure, which is an infrastructure error
here. One request carries all calls of a grading, so the code can see later inputs before it answers earlier ones.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import inspect
import json
import secrets
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from entrostat.errors import EntrostatError
from entrostat.grading import interpreter, wire
from entrostat.grading.judging import AnyTask, CallTests, Job, ProgramTests, Tests, prepare
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import Failure, WorkerError, failure_of
from entrostat.tasks import ProgramTask, ScriptTask, TaskError

_ATTEMPTS = 2
_STATUSES = ("Finished", "Error", "TimeLimitExceeded")
_REPLY_LIMIT = 16 << 20
# Carries out the requests on standard input with this package's own interpreter loop, and prints the replies last.
_HARNESS = """
import json, os, sys, types
out = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
job = json.loads(sys.stdin.read())
for name, source in job["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(source, name, "exec"), module.__dict__)

class Done(Exception):
    pass

class Batch:
    def __init__(self):
        self.replies = []
    def receive(self):
        if len(self.replies) == len(job["requests"]):
            raise Done
        kind, text = job["requests"][len(self.replies)]
        return kind, sys.modules["entrostat.grading.wire"].decode(text)
    def reply(self, status, text=""):
        self.replies.append([status, text])

batch = Batch()
try:
    sys.modules["entrostat.grading.interpreter"].converse(batch)
except Done:
    os.write(out, json.dumps([job["nonce"], batch.replies]).encode())
"""
_MODULES = (
    ("entrostat", ""),
    ("entrostat.grading", ""),
    ("entrostat.grading.wire", inspect.getsource(wire)),
    ("entrostat.grading.interpreter", inspect.getsource(interpreter)),
)


class RemoteGrader:
    """Grades Tasks and ProgramTasks on a SandboxFusion-compatible server.

    url: the server's address, such as http://host:8080. concurrency: requests under way at once. timeout: seconds for
    one request's run. memory: bytes. patience: seconds that a grading may take beyond its runs' time, waiting in the
    server's queue included. A request that fails is made once more; then, or when its time is up, the grading is an
    infrastructure error. When the server has done nothing but fail for `patience` seconds, so is what is left of the
    batch. No reply raises: not one that is no HTTP, no JSON, of the wrong shape or without end. One above 16 MiB is the
    code's output limit, for code can print so much.

    Raises ValueError for a setting out of range.
    """

    def __init__(
        self,
        url: str,
        concurrency: int = 8,
        timeout: float = 3.0,
        memory: int = 1 << 30,
        patience: float = 10.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}; it must start with http:// or https://")
        if concurrency < 1 or not 0 < timeout < float("inf") or not 0 <= patience < float("inf"):
            raise ValueError(
                f"concurrency is {concurrency}, timeout {timeout}, patience {patience}; allowed: at least 1, "
                "a positive number of seconds, 0 or more seconds"
            )
        self._url = url.rstrip("/") + "/run_code"
        self._concurrency = concurrency
        self._timeout = timeout
        self._memory = memory
        self._patience = patience

    def grade(self, pairs: Iterable[tuple[AnyTask, str]], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order; deadline as in CodeGrader.grade.

        TaskError for a ScriptTask or a checker: they need an interpreter of their own beside the code's.
        """
        pairs = list(pairs)
        for task, _ in pairs:
            if isinstance(task, ScriptTask):
                raise TaskError(f"task {task.id!r} is a script of assertions; grade it with CodeGrader")
            if isinstance(task, ProgramTask) and task.checker:
                raise TaskError(f"task {task.id!r} has a checker; grade it with CodeGrader")
        until = float("inf") if deadline is None else time.monotonic() + deadline
        health = _Health(self._patience)
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda job: self._judge(job, until, health), prepare(pairs)))

    def _judge(self, job: Job, until: float, health: _Health) -> Verdict:
        return job.first_that_compiles(lambda code: self._judge_code(job.tests, code, until, health))

    def _judge_code(self, tests: Tests, code: str, until: float, health: _Health) -> Verdict:
        begun = time.monotonic()
        runs = len(tests.exchanges) if isinstance(tests, ProgramTests) else 1
        last = begun + runs * self._timeout + self._patience
        reason = "not graded before the batch's deadline"
        for _ in range(_ATTEMPTS):
            if time.monotonic() > min(until, last):
                break
            if health.lost():
                reason = f"{self._url} has failed for {self._patience:g} s"
                break
            try:
                match tests:
                    case CallTests() as calls:
                        self._judge_calls(calls, code, last)
                    case ProgramTests() as program:
                        self._judge_program(program, code, last)
                health.note(failed=False)
                return Verdict(Outcome.PASSED, "", time.monotonic() - begun)
            except Failure as failure:
                health.note(failed=False)
                return Verdict(failure.outcome, failure.detail, time.monotonic() - begun)
            except WorkerError as error:
                health.note(failed=True)
                reason = str(error)
        return Verdict(Outcome.INFRASTRUCTURE_ERROR, reason, time.monotonic() - begun)

    def _judge_calls(self, tests: CallTests, code: str, until: float) -> None:
        nonce = secrets.token_hex(wire.NONCE_BYTES)
        loads = [("load", wire.encode(source)) for source in (tests.preamble, code, tests.setup) if source]
        requests = loads + [(question.kind, question.request) for question in tests.questions]
        stdin = json.dumps({"nonce": nonce, "modules": _MODULES, "requests": requests})
        replies = _replies(self._run(_HARNESS, stdin, until), nonce, len(requests))
        for (status, text), (kind, _) in zip(replies, requests, strict=True):
            if status != ("loaded" if kind == "load" else "answer"):
                raise failure_of(status, text)
        for number, (_, answer) in enumerate(replies[len(loads) :], 1):
            tests.check(number, answer)

    def _judge_program(self, tests: ProgramTests, code: str, until: float) -> None:
        # Compiled on its own, the code may begin with a __future__ import all the same.
        program = f"{tests.preamble}\nexec(compile({code!r}, '<solution>', 'exec'))\n" if tests.preamble else code
        for number, exchange in enumerate(tests.exchanges, 1):
            printed = self._run(program, exchange.stdin, until)
            if not tests.is_right(exchange, printed):
                raise tests.wrong(number, printed)

    def _run(self, code: str, stdin: str, until: float) -> str:
        """What the code prints; Failure if it does not end well, WorkerError if the server does not say."""
        body = {
            "code": code,
            "stdin": stdin,
            "language": "python",
            "run_timeout": self._timeout,
            "memory_limit_MB": self._memory >> 20,
        }
        seconds = max(0.0, min(self._timeout + self._patience, until - time.monotonic()))
        try:
            status, exit_code, stdout, stderr = _result(
                post(self._url, json.dumps(body).encode(), seconds, _REPLY_LIMIT)
            )
        except ReplyTooLongError as error:
            # The code can print so much; were it the server's fault, code could take itself out of its group.
            raise Failure(Outcome.OUTPUT_LIMIT, str(error)) from error
        except ExchangeError as error:
            raise WorkerError(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise WorkerError(f"{self._url}: a reply that is no SandboxFusion result: {error}") from error
        if status == "TimeLimitExceeded":
            raise Failure(Outcome.TIMEOUT, f"no answer within {self._timeout:g} s")
        if exit_code != 0:
            kind = Outcome.SYNTAX_ERROR if "SyntaxError" in stderr.rsplit("\n", 2)[-2:][0] else Outcome.RUNTIME_ERROR
            raise Failure(kind, stderr[-200:] or f"exit status {exit_code}")
        return stdout


class _Health:
    """Whether a server has done nothing but fail for longer than `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._failing_since: float | None = None
        self._lock = threading.Lock()

    def note(self, failed: bool) -> None:
        """A request failed, or the server answered it."""
        with self._lock:
            if not failed:
                self._failing_since = None
            elif self._failing_since is None:
                self._failing_since = time.monotonic()

    def lost(self) -> bool:
        """Whether asking again is useless."""
        with self._lock:
            return self._failing_since is not None and time.monotonic() > self._failing_since + self._patience


def _result(reply: bytes) -> tuple[str, int | None, str, str]:
    """Status, exit code, output and errors of a run; ValueError for any other reply and for a reported failure."""
    body = json.loads(reply.decode())
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        raise ValueError("no status")
    if body["status"] == "SandboxError":
        raise ValueError(f"the server failed: {str(body.get('message'))[:200]}")
    result = body.get("run_result")
    if not isinstance(result, dict):
        raise ValueError("no run_result")
    status, code, stdout, stderr = (result.get(name) for name in ("status", "return_code", "stdout", "stderr"))
    if status not in _STATUSES or not (code is None or type(code) is int):
        raise ValueError(f"status {str(status)[:50]!r}, return_code {str(code)[:50]!r}")
    if not all(text is None or isinstance(text, str) for text in (stdout, stderr)):
        raise ValueError("stdout or stderr is not text")
    if status == "Finished" and code is None:
        raise ValueError("a finished run without return_code")
    return status, code, stdout or "", stderr or ""


def _replies(printed: str, nonce: str, count: int) -> list[tuple[str, str]]:
    """The replies that the harness printed; Failure if the code kept it from doing so."""
    try:
        said, replies = json.loads(printed)
        pairs = [(str(status), str(text)) for status, text in replies]
    except (ValueError, TypeError, RecursionError):
        raise Failure(Outcome.RUNTIME_ERROR, "the code ended its interpreter") from None
    if said != nonce or len(pairs) != count:
        raise Failure(Outcome.WRONG, "answers that do not belong to their calls")
    return pairs


class ExchangeError(EntrostatError):
    """No whole reply with status 200 came in time; the message says what came instead."""


class ReplyTooLongError(ExchangeError):
    """The reply is longer than allowed."""


def post(url: str, body: bytes, seconds: float, limit: int) -> bytes:
    """The body of the reply to the JSON text `body`.

    ExchangeError after `seconds` in all, ReplyTooLongError above `limit` bytes. No redirection is followed. Runs in a
    thread of its own, because neither a look-up of a name nor a reply of one byte per second has a limit in the
    libraries below; on time-out the connection is shut down, which ends the thread.
    """
    exchange = _Exchange(url, body, seconds, limit)
    try:
        exchange.start()
    except RuntimeError as error:  # no thread is left to this process
        raise ExchangeError(f"{url}: {error}") from error
    exchange.join(seconds)
    if exchange.is_alive():
        exchange.give_up()
        raise ExchangeError(f"{url}: no whole reply within {seconds:.1f} s")
    if exchange.failure is not None:
        raise ExchangeError(f"{url}: {type(exchange.failure).__name__}: {exchange.failure}") from exchange.failure
    if len(exchange.reply) > limit:
        raise ReplyTooLongError(f"{url}: a reply of more than {limit} bytes")
    return exchange.reply


class _Exchange(threading.Thread):
    def __init__(self, url: str, body: bytes, seconds: float, limit: int) -> None:
        super().__init__(daemon=True, name="entrostat-post")
        self._request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        self._seconds = seconds
        self._limit = limit
        self._connections: list[http.client.HTTPConnection] = []
        self.reply = b""
        self.failure: Exception | None = None

    def run(self) -> None:
        """Exchange; then either `reply` or `failure` is set."""
        try:
            opener = urllib.request.build_opener(_NoRedirect, _Noting(self._connections))
            with opener.open(self._request, timeout=self._seconds) as response:
                if response.status != http.HTTPStatus.OK:
                    raise http.client.HTTPException(f"status {response.status}")
                self.reply = response.read(self._limit + 1)
                expected = response.headers.get("Content-Length", "")
                if expected.isdecimal() and len(self.reply) < min(int(expected), self._limit):
                    raise http.client.IncompleteRead(self.reply[:0], int(expected) - len(self.reply))
        except Exception as error:  # http.client and ssl raise more than OSError
            self.failure = error

    def give_up(self) -> None:
        """Shut the connection down, which ends a thread that waits for it."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)


class _Noting(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Notes the connections that it makes."""

    def __init__(self, connections: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self._made = connections

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(self._noted, http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(self._noted, http.client.HTTPSConnection), req)

    def _noted(self, kind: type[http.client.HTTPConnection], *args: Any, **settings: Any) -> Any:
        self._made.append(kind(*args, **settings))
        return self._made[-1]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follow none: the server was named, not what it names."""
