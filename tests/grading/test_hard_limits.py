"""Limits that a job scheduler sets, and the one on CPU time: taken, or named before anything is graded."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from entrostat.grading import CodeGrader, Outcome
from entrostat.grading.fork_server import _charged_clock
from entrostat.grading.sandbox import Limits
from entrostat.grading.worker import Failure, Interpreter, WorkerError
from entrostat.tasks import Call, Task

GRADE = """
from entrostat.grading import CodeGrader
from entrostat.tasks import Call, Task
task = Task(id="t", prompt="", entry_point="f", tests=(Call((1,), 2),))
try:
    with CodeGrader(workers=1, patience=3) as grader:
        print(grader.grade([(task, "def f(x): return x + 1")])[0].outcome)
except ValueError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize(
    "limit", ["-f 2000", "-n 40", "-u 500", "-c 0", "-s 512", "-i 3", "-l 0", "-q 0", "-v 1100000"]
)
def test_a_smaller_limit_is_taken(package_alone, limit):
    assert under(limit, package_alone) == "passed"


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("-f 100", "RLIMIT_FSIZE"),
        ("-n 31", "RLIMIT_NOFILE"),
        ("-u 7", "RLIMIT_NPROC"),
        ("-t 3", "RLIMIT_CPU"),
        ("-v 1000000", "RLIMIT_AS"),
        ("-d 1000000", "RLIMIT_DATA"),
    ],
)
def test_a_limit_that_leaves_too_little_is_named_with_the_remedy(package_alone, limit, name):
    said = under(limit, package_alone)
    assert said.startswith(f"refused: the hard limit {name} (ulimit {limit[:2]}) leaves ")
    assert "allowed: at least" in said
    assert "raise the limit" in said


def under(limit: str, package_alone: str) -> str:
    command = ["bash", "-c", f'ulimit {limit}; exec "$0" -c "$1"', sys.executable, package_alone + GRADE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return (done.stdout.strip() or done.stderr).splitlines()[-1]


def test_threads_of_all_workers_leave_most_of_the_user_s_processes_to_others(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (200, 200) if kind == resource.RLIMIT_NPROC else (-1, -1))
    for workers in (1, 2, 8):
        limits = Limits(timeout=3, memory=1 << 30, output=1 << 20).within_hard_limits(workers)
        assert limits.threads == min(32, 200 // (4 * workers))


def test_the_clock_of_a_dead_process_says_what_the_kernel_charged_it():
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        while True:
            pass
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    charged = time.clock_gettime(_charged_clock(child))
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    assert charged >= 1.0


class Reporting:
    """A worker whose grading ended as told."""

    limits = Limits(timeout=3, memory=1 << 30, output=1 << 20)

    def __init__(self, **report: float) -> None:
        self.report = {"ended": True, "code": -signal.SIGKILL, "cpu": 0.5, "grown": 0, **report}

    def end(self, key: int, wait: bool) -> dict[str, float]:
        return self.report


class Closed:
    def close(self) -> None:
        pass


def test_a_kill_at_the_limit_on_cpu_time_is_a_timeout_however_little_was_used():
    """The kernel charges a whole tick for a moment of it, so code can be at its limit early."""
    failure = Interpreter(Reporting(charged=4.0), 1, Closed())._explain_end()
    assert isinstance(failure, Failure)
    assert failure.outcome is Outcome.TIMEOUT
    with pytest.raises(WorkerError, match="killed from outside"):
        Interpreter(Reporting(charged=3.9), 1, Closed())._explain_end()


def test_code_over_its_cpu_time_on_many_threads_is_a_timeout():
    code = """
import hashlib, threading, time
def burn():
    while True: hashlib.sha256(bytes(1 << 20))
def solve():
    for _ in range(8): threading.Thread(target=burn, daemon=True).start()
    time.sleep(100)
"""
    with CodeGrader(workers=1, timeout=1.0, patience=5.0) as grader:
        assert grader.grade([(Task("burn", "", "solve", (Call((), 1),)), code)])[0].outcome is Outcome.TIMEOUT
