"""Grading by a server: a small one of our own on loopback speaks the interface, and misbehaves on request."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

from entrostat.grading import Outcome
from entrostat.grading.remote import RemoteGrader
from entrostat.tasks import Call, Exchange, ProgramTask, ScriptTask, Task, TaskError

ADD = Task("add", "", "solve", (Call((1,), 2), Call((-1,), 0)))
ECHO = ProgramTask("echo", "", (Exchange("a\n", "a"), Exchange("b\n", "b")))
RIGHT = "def solve(x):\n    return x + 1"


class Handler(http.server.BaseHTTPRequestHandler):
    fail_next: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        how = self.fail_next.pop() if self.fail_next else "well"
        if how == "hang up":
            return
        reply = {"status": "SandboxError", "message": "out of pods"} if how == "error" else self.run_code(request)
        body = b"not JSON" if how == "garbage" else json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def run_code(self, request: dict) -> dict:
        assert request["language"] == "python"
        command = [sys.executable, "-I", "-c", request["code"]]
        try:
            done = subprocess.run(
                command, input=request["stdin"], capture_output=True, text=True, timeout=request["run_timeout"]
            )
        except subprocess.TimeoutExpired:
            return {"status": "Failed", "message": "", "run_result": {"status": "TimeLimitExceeded"}}
        result = {"status": "Finished", "return_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        return {"status": "Failed" if done.returncode else "Success", "message": "", "run_result": result}

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def remote():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield RemoteGrader(f"http://127.0.0.1:{server.server_port}", concurrency=2, timeout=2.0)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (RIGHT, Outcome.PASSED),
        ("print('noise')\n" + RIGHT, Outcome.PASSED),
        ("class Solution:\n    def solve(self, x):\n        return x + 1", Outcome.PASSED),
        ("def solve(x):\n    return 2", Outcome.WRONG),
        ("def solve(x):\n    return float(x + 1)", Outcome.WRONG),
        ("class Yes(int):\n    def __eq__(self, o): return True\ndef solve(x):\n    return Yes()", Outcome.WRONG),
        ("def solve(x):\n    return 1 / 0", Outcome.RUNTIME_ERROR),
        ("def solve(x) return", Outcome.SYNTAX_ERROR),
        ("import os\nos._exit(0)\ndef solve(x): pass", Outcome.RUNTIME_ERROR),
        (
            "import os\nfor fd in range(3, 9):\n    try: os.write(fd, b'[\"passed\"]')\n    except OSError: pass\n"
            + RIGHT,
            Outcome.RUNTIME_ERROR,
        ),
        ("def solve(x):\n    while True: pass", Outcome.TIMEOUT),
        ("no code", Outcome.NO_CODE),
    ],
)
def test_calls_are_judged_here_by_what_the_server_answers(remote, code, outcome):
    assert remote.grade([(ADD, code)])[0].outcome is outcome


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("print(input())", Outcome.PASSED),
        ("print('a')", Outcome.WRONG),
        ("print(input())\nraise SystemExit(1)", Outcome.RUNTIME_ERROR),
        ("print(input()", Outcome.SYNTAX_ERROR),
        ("while True: pass", Outcome.TIMEOUT),
    ],
)
def test_programs_are_judged_by_what_they_print(remote, code, outcome):
    assert remote.grade([(ECHO, f"```python\n{code}\n```")])[0].outcome is outcome


@pytest.mark.parametrize("failure", ["hang up", "error", "garbage"])
def test_one_failure_is_tried_again_and_two_are_no_reward_at_all(remote, failure):
    Handler.fail_next = [failure]
    assert remote.grade([(ADD, RIGHT)])[0].passed
    Handler.fail_next = [failure] * 2
    verdict = remote.grade([(ADD, RIGHT)])[0]
    assert (verdict.outcome, verdict.reward) == (Outcome.INFRASTRUCTURE_ERROR, None)


def test_verdicts_keep_their_order_and_the_deadline_holds(remote):
    codes = [RIGHT if i % 2 else "def solve(x): return 0" for i in range(6)]
    assert [v.passed for v in remote.grade([(ADD, code) for code in codes])] == [bool(i % 2) for i in range(6)]
    assert {v.reward for v in remote.grade([(ADD, code) for code in codes], deadline=0)} == {None}


def test_a_script_is_refused_with_the_remedy(remote):
    with pytest.raises(TaskError, match="grade it with CodeGrader"):
        remote.grade([(ScriptTask("s", "", "f", "assert f(1)"), RIGHT)])


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ValueError, match="url is 'localhost:80'"):
        RemoteGrader("localhost:80")
