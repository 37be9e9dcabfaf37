"""Grading by a server: a small one of our own on loopback speaks the interface, and misbehaves on request."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def said(**result: object) -> bytes:
    run = {"status": "Finished", "return_code": 0, "stdout": "", "stderr": "", **result}
    return ok(json.dumps({"status": "Success", "run_result": run}).encode())


NO_REPLIES = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n",
    "nothing": b"",
    "a status that is no number": b"HTTP/1.1 abc\r\n\r\n",
    "a header that is too long": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    "a chunk that is cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "a chunk of no length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a body that is cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
    "an error": b"HTTP/1.1 500 X\r\n\r\n",
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "endless continues": b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
    "a redirection to a file": b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n",
    "a redirection to itself": b"HTTP/1.1 307 F\r\nLocation: /run_code\r\n\r\n",
    "a redirection to nowhere": b"HTTP/1.1 302 F\r\nLocation: http://[::1\r\n\r\n",
    "a list": ok(b"[]"),
    "null": ok(b"null"),
    "deep JSON": ok(b"[" * 200_000),
    "a huge number": ok(b'{"status":' + b"1" * 100_000 + b"}"),
    "no UTF-8": ok(b"\xff\xfe{"),
    "a status that is no text": ok(b'{"status":{"a":1},"run_result":{"status":{},"return_code":false}}'),
    "no result": ok(b'{"status":"Success","run_result":null}'),
    "output that is no text": said(stdout=["a"]),
    "errors that are no text": said(stderr={}),
    "an exit code that is a text": said(return_code="0"),
    "an exit code that is missing": said(return_code=None),
    "an unknown status": said(status="Maybe"),
}


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a server that reads each request and then does what it is told; its address."""
    listeners: list[socket.socket] = []

    def answer(connection: socket.socket, reply: Callable[[socket.socket], None]) -> None:
        with connection:
            try:
                head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(1 << 16)
                reply(connection)
            except OSError:
                pass

    def accept(listener: socket.socket, reply: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, reply), daemon=True).start()

    def start(reply: Callable[[socket.socket], None]) -> str:
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=accept, args=(listeners[-1], reply), daemon=True).start()
        return f"http://127.0.0.1:{listeners[-1].getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("reply", NO_REPLIES)
def test_a_reply_that_says_nothing_is_no_reward_and_no_exception(serve, reply):
    remote = RemoteGrader(serve(lambda connection: connection.sendall(NO_REPLIES[reply])), concurrency=2, timeout=0.5)
    verdicts = remote.grade([(ADD, RIGHT)] * 3)
    assert [v.outcome for v in verdicts] == [Outcome.INFRASTRUCTURE_ERROR] * 3, verdicts


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(400):
        connection.sendall(b" ")
        time.sleep(0.05)


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(400):
        connection.sendall(b"X")
        time.sleep(0.05)


@pytest.mark.parametrize("reply", [drip, drip_headers, lambda connection: time.sleep(20)])
def test_a_slow_server_costs_the_patience_once_a_batch(serve, reply):
    remote = RemoteGrader(serve(reply), concurrency=2, timeout=0.2, patience=0.5)
    begun = time.monotonic()
    verdicts = remote.grade([(ADD, RIGHT)] * 100)
    assert {v.outcome for v in verdicts} == {Outcome.INFRASTRUCTURE_ERROR}
    assert time.monotonic() - begun < 15  # a hundred times the patience is 50 seconds


def test_output_without_end_is_the_code_s(serve):
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(40):
            connection.sendall(b" " * (1 << 20))

    verdict = RemoteGrader(serve(flood), timeout=5.0).grade([(ADD, RIGHT)])[0]
    assert verdict.outcome is Outcome.OUTPUT_LIMIT


def test_what_comes_out_of_the_run_is_judged_as_the_code_s(serve):
    for result, outcome in (
        ({"stdout": "[" * 100_000}, Outcome.RUNTIME_ERROR),
        ({"stdout": '["x",[["answer","2"]]]'}, Outcome.WRONG),
        ({"stdout": "\ud800"}, Outcome.RUNTIME_ERROR),
        ({"return_code": 1, "stderr": None}, Outcome.RUNTIME_ERROR),
        ({"return_code": 1, "stderr": "\n"}, Outcome.RUNTIME_ERROR),
        ({"status": "Error", "return_code": None}, Outcome.RUNTIME_ERROR),
        ({"status": "TimeLimitExceeded", "return_code": None}, Outcome.TIMEOUT),
    ):
        remote = RemoteGrader(serve(lambda connection, result=result: connection.sendall(said(**result))))
        assert remote.grade([(ADD, RIGHT)])[0].outcome is outcome, result


@pytest.mark.parametrize("setting", [{"concurrency": 0}, {"timeout": 0}, {"patience": -1}, {"timeout": float("nan")}])
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RemoteGrader("http://127.0.0.1:1", **setting)
