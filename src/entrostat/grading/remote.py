"""RemoteGrader: gradings by a server with SandboxFusion's interface (POST /run_code), for many machines behind one
address.

The server gets the code and the inputs and sends back answers; expected values stay here, and answers compare as in
CodeGrader. Isolation is the server's: so is the word on what was its own failure, which is an infrastructure error
here. One request carries all calls of a grading, so the code can see later inputs before it answers earlier ones.
"""

from __future__ import annotations

import inspect
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from entrostat.grading import interpreter, wire
from entrostat.grading.judging import AnyTask, CallTests, Job, ProgramTests, prepare, same_lines
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.grading.worker import Failure, WorkerError, failure_of
from entrostat.tasks import ScriptTask, TaskError

_ATTEMPTS = 2
_PATIENCE = 30.0
_REPLY_LIMIT = 64 << 20
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
    def hear(self):
        if len(self.replies) == len(job["requests"]):
            raise Done
        kind, text = job["requests"][len(self.replies)]
        return kind, sys.modules["entrostat.grading.wire"].decode(text)
    def say(self, status, text=""):
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
    one request's run. memory: bytes. A request that fails is made once more, then it is an infrastructure error.
    """

    def __init__(self, url: str, concurrency: int = 8, timeout: float = 3.0, memory: int = 1 << 30) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}; it must start with http:// or https://")
        self._url = url.rstrip("/") + "/run_code"
        self._concurrency = concurrency
        self._timeout = timeout
        self._memory = memory

    def grade(self, pairs: Iterable[tuple[AnyTask, str]], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order; deadline as in CodeGrader.grade.

        TaskError for a ScriptTask: its assertions need an interpreter of their own beside the code's.
        """
        pairs = list(pairs)
        for task, _ in pairs:
            if isinstance(task, ScriptTask):
                raise TaskError(f"task {task.id!r} is a script of assertions; grade it with CodeGrader")
        until = None if deadline is None else time.monotonic() + deadline
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda job: self._judge(job, until), prepare(pairs)))

    def _judge(self, job: Job, until: float | None) -> Verdict:
        if job.code is None:
            return Verdict(Outcome.NO_CODE, "the completion contains no code")
        begun = time.monotonic()
        reason = "not graded before the batch's deadline"
        for _ in range(_ATTEMPTS):
            if until is not None and time.monotonic() > until:
                break
            try:
                match job.tests:
                    case CallTests() as calls:
                        self._judge_calls(calls, job.code)
                    case ProgramTests() as program:
                        self._judge_program(program, job.code)
                return Verdict(Outcome.PASSED, "", time.monotonic() - begun)
            except Failure as failure:
                return Verdict(failure.outcome, failure.detail, time.monotonic() - begun)
            except WorkerError as error:
                reason = str(error)
        return Verdict(Outcome.INFRASTRUCTURE_ERROR, reason, time.monotonic() - begun)

    def _judge_calls(self, tests: CallTests, code: str) -> None:
        nonce = secrets.token_hex(wire.NONCE_BYTES)
        loads = [("load", wire.encode(source)) for source in (tests.preamble, code, tests.setup) if source]
        requests = loads + [(question.kind, question.request) for question in tests.questions]
        stdin = json.dumps({"nonce": nonce, "modules": _MODULES, "requests": requests})
        replies = _replies(self._run(_HARNESS, stdin), nonce, len(requests))
        for (status, text), (kind, _) in zip(replies, requests, strict=True):
            if status != ("loaded" if kind == "load" else "answer"):
                raise failure_of(status, text)
        for number, (_, answer) in enumerate(replies[len(loads) :], 1):
            tests.check(number, answer)

    def _judge_program(self, tests: ProgramTests, code: str) -> None:
        # Compiled by itself, the code may begin with a __future__ import all the same.
        program = f"{tests.preamble}\nexec(compile({code!r}, '<solution>', 'exec'))\n" if tests.preamble else code
        for number, (stdin, stdout) in enumerate(tests.exchanges, 1):
            printed = self._run(program, stdin)
            if not same_lines(stdout, printed, tests.atol):
                raise Failure(Outcome.WRONG, f"test {number} of {len(tests.exchanges)}: printed {printed[:200]!r}")

    def _run(self, code: str, stdin: str) -> str:
        """What the code prints; Failure if it does not end well, WorkerError if the server does not say."""
        body = {
            "code": code,
            "stdin": stdin,
            "language": "python",
            "run_timeout": self._timeout,
            "memory_limit_MB": self._memory >> 20,
        }
        request = urllib.request.Request(self._url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout + _PATIENCE) as response:
                data = response.read(_REPLY_LIMIT + 1)
            if len(data) > _REPLY_LIMIT:
                raise Failure(Outcome.OUTPUT_LIMIT, f"a reply above {_REPLY_LIMIT} bytes")
            reply: dict[str, Any] = json.loads(data)
            if reply["status"] == "SandboxError":
                raise WorkerError(f"the server failed: {str(reply.get('message'))[:200]}")
            result = reply["run_result"]
            status, exit_code, stdout = (
                str(result["status"]),
                result.get("return_code"),
                str(result.get("stdout") or ""),
            )
            stderr = str(result.get("stderr") or "")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WorkerError(f"{self._url}: {type(error).__name__}: {error}") from error
        if status == "TimeLimitExceeded":
            raise Failure(Outcome.TIMEOUT, f"no answer within {self._timeout:g} s")
        if exit_code != 0:
            kind = Outcome.SYNTAX_ERROR if "SyntaxError" in stderr.rsplit("\n", 2)[-2:][0] else Outcome.RUNTIME_ERROR
            raise Failure(kind, stderr[-200:] or f"exit status {exit_code}")
        return stdout


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
