"""When the machine fails, no verdict is invented; when the grader ends, nothing of it stays."""

from __future__ import annotations

import contextlib
import math
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from entrostat.grading import CodeGrader, IsolationError, Outcome, WorkerError
from entrostat.grading.code import Slot
from entrostat.grading.worker import Failure, Interpreter, SuspectError, Worker

RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n"
WRONG = "def solve(numbers):\n    return numbers\n"


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in listing.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    direct = children(pid)
    return direct + [below for child in direct for below in descendants(child)]


def wait_until(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_worker_killed_at_any_moment_costs_no_verdict_and_invents_none(task):
    with CodeGrader(workers=2) as grader:
        stop = threading.Event()

        def kill_now_and_then() -> None:
            rng = random.Random(0)
            while not stop.wait(0.5):
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(rng.choice(descendants(os.getpid())), signal.SIGKILL)

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        try:
            verdicts = grader.grade([(task, RIGHT), (task, WRONG)] * 100)
        finally:
            stop.set()
            killer.join()
        assert {v.outcome for v in verdicts[::2]} == {Outcome.PASSED}
        assert {v.outcome for v in verdicts[1::2]} == {Outcome.WRONG}


class Failing:
    """Tests whose first attempts fail as told."""

    digest = ""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    def judge(self, interpreters, code: str) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return "passed"


@pytest.fixture
def slot():
    """Grading in a slot whose fork servers cost nothing; at most one of them is ever there."""
    hired = []

    class Free:
        missing: ClassVar = {}

        def __init__(self) -> None:
            hired.append(self)

        def close(self) -> None:
            hired.remove(self)

    place = Slot(Free, patience=0.4)
    yield lambda tests, until=math.inf, stop=None: place.grade(tests, "", until, stop or threading.Event())
    assert len(hired) <= 1


def test_failures_of_the_machine_are_tried_again_until_one_attempt_says_something(slot):
    assert slot(Failing(*[WorkerError("gone")] * 4)).passed
    wrong = Failing(WorkerError("gone"), IsolationError("no namespace left"), Failure(Outcome.WRONG, "answered 3"))
    assert slot(wrong).outcome is Outcome.WRONG


def test_patience_ends_and_a_dead_machine_does_not_cost_it_again(slot):
    first = Failing(*[WorkerError("gone")] * 1000)
    assert slot(first).reward is None
    assert 1 < 1000 - len(first.failures) < 30
    second = Failing(*[WorkerError("gone")] * 1000)
    time.sleep(0.4)
    assert slot(second).reward is None
    assert len(second.failures) == 999
    assert slot(Failing()).passed
    assert slot(Failing(WorkerError("gone"), WorkerError("gone"))).passed


def test_the_deadline_and_a_cancellation_end_the_attempts(slot):
    assert slot(Failing(*[WorkerError("gone")] * 3), until=time.monotonic()).reward is None
    cancelled = threading.Event()
    cancelled.set()
    assert slot(Failing(*[WorkerError("gone")] * 3), stop=cancelled).reward is None


def test_code_that_the_machine_kills_again_and_again_for_its_memory_is_to_blame(slot):
    killed = SuspectError(Outcome.MEMORY, "killed from outside")
    assert slot(Failing(*[killed] * 5)).outcome is Outcome.MEMORY
    assert slot(Failing(*[killed] * 4)).passed


def test_a_suspect_failure_at_the_end_of_the_time_is_the_code_s_too(slot):
    killed = SuspectError(Outcome.MEMORY, "killed from outside")
    assert slot(Failing(killed), until=time.monotonic()).outcome is Outcome.MEMORY
    assert slot(Failing(WorkerError("gone"), *[killed] * 3), until=time.monotonic() + 0.1).reward is None


def test_code_that_had_no_time_gets_a_second_chance_and_no_third(slot):
    starved = Failure(Outcome.TIMEOUT, "no answer", starved=True)
    assert slot(Failing(starved)).passed
    assert slot(Failing(starved, starved)).outcome is Outcome.TIMEOUT
    assert slot(Failing(Failure(Outcome.TIMEOUT, "no answer"))).outcome is Outcome.TIMEOUT


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


@pytest.mark.parametrize(
    ("size", "patience", "outcome"), [(100 << 20, 9.0, Outcome.MEMORY), (0, 0.4, Outcome.INFRASTRUCTURE_ERROR)]
)
def test_a_kill_is_suspect_only_where_the_code_grew(task, size, patience, outcome):
    """As the kernel kills for want of memory: from outside, every time that the code has taken so much."""
    stop = threading.Event()

    def kill_gradings() -> None:
        while not stop.wait(0.02):
            for grading in descendants(os.getpid())[2:]:
                if resident(grading) > size:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(grading, signal.SIGKILL)

    code = f"import time\nx = bytearray(b'x' * {size})\ntime.sleep(9)\ndef solve(numbers): pass"
    with CodeGrader(workers=1, timeout=5, patience=patience) as grader:
        killer = threading.Thread(target=kill_gradings)
        killer.start()
        try:
            assert grader.grade([(task, code)])[0].outcome is outcome
        finally:
            stop.set()
            killer.join()


def test_an_answer_that_was_judged_counts_though_the_fork_server_dies_with_the_grading(task, monkeypatch):
    """Else wrong code that takes the end of its interpreter down would lose its verdict."""

    def fail(self: Worker, key: int) -> None:
        raise WorkerError("gone")

    with CodeGrader(workers=1) as grader:
        monkeypatch.setattr(Worker, "kill", fail)
        assert [v.outcome for v in grader.grade([(task, WRONG), (task, RIGHT)])] == [Outcome.WRONG, Outcome.PASSED]


def test_a_machine_without_descriptors_gives_no_reward_and_recovers(task, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise OSError(24, "Too many open files")

    with CodeGrader(workers=1, patience=0) as grader:
        monkeypatch.setattr("socket.socketpair", refuse)
        assert [v.reward for v in grader.grade([(task, RIGHT)] * 2)] == [None, None]
        monkeypatch.undo()
        assert grader.grade([(task, RIGHT)])[0].passed


def test_what_a_terminal_sends_does_not_reach_the_code(package_alone):
    """A trainer that goes on after Ctrl-C must not find honest code failed by it."""
    script = package_alone + textwrap.dedent("""
        import os, signal, threading
        from entrostat.grading import CodeGrader
        from entrostat.tasks import Call, Task
        signal.signal(signal.SIGINT, lambda *arguments: None)
        task = Task("t", "", "solve", (Call((), 1),))
        code = "import time\\ndef solve():\\n    time.sleep(0.5)\\n    return 1"
        with CodeGrader(workers=2) as grader:
            threading.Timer(0.25, os.killpg, (os.getpgrp(), signal.SIGINT)).start()
            print([verdict.passed for verdict in grader.grade([(task, code)] * 2)])
    """)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, start_new_session=True)
    assert done.stdout.strip() == "[True, True]"


def test_closing_from_another_thread_ends_a_batch(task):
    grader = CodeGrader(workers=2, timeout=0.3)
    timer = threading.Timer(0.1, grader.close)
    timer.start()
    verdicts = grader.grade([(task, "def solve(numbers):\n    while True: pass")] * 50)
    timer.join()
    assert verdicts[0].outcome is Outcome.TIMEOUT
    assert verdicts[-1].reward is None
    with pytest.raises(ValueError, match="closed"):
        grader.grade([(task, RIGHT)])


def test_killed_interpreters_that_wait_for_a_grading_cost_no_verdict(task):
    with CodeGrader(workers=1) as grader:
        for _ in range(3):
            time.sleep(0.5)  # those that are still being made wait for nothing yet
            for pid in descendants(os.getpid())[2:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert [v.outcome for v in grader.grade([(task, RIGHT), (task, WRONG)])] == [Outcome.PASSED, Outcome.WRONG]


def test_gradings_that_are_slow_to_die_are_waited_for_and_leave_nothing(task):
    """Each leaves much memory to free, and the next one begins meanwhile; their number stays bounded."""
    large = "x = bytearray(b'x' * (200 << 20))\n"
    with CodeGrader(workers=1) as grader:
        grader.grade([(task, RIGHT)])
        before = len(descendants(os.getpid()))
        assert all(v.passed for v in grader.grade([(task, large + RIGHT + f"# {i}") for i in range(12)]))
        assert wait_until(lambda: len(descendants(os.getpid())) == before)


def test_a_grading_killed_from_outside_is_tried_once_more(task):
    slow_first = "import time\ntime.sleep(0.5)\n" + RIGHT
    with CodeGrader(workers=1) as grader:
        # The grading, and those that wait for the next one.
        timer = threading.Timer(0.25, lambda: [os.kill(pid, signal.SIGKILL) for pid in descendants(os.getpid())[2:]])
        timer.start()
        verdict = grader.grade([(task, slow_first)])[0]
        timer.join()
    assert verdict.passed
    assert verdict.seconds > 0.5


def test_a_machine_that_keeps_failing_gives_no_reward_and_no_punishment(task, monkeypatch):
    def fail(self: Worker) -> Interpreter:
        raise WorkerError("out of processes")

    with CodeGrader(workers=1, patience=0.1) as grader:
        monkeypatch.setattr(Worker, "start", fail)
        verdict = grader.grade([(task, RIGHT)])[0]
        assert (verdict.outcome, verdict.reward, verdict.detail) == (
            Outcome.INFRASTRUCTURE_ERROR,
            None,
            "out of processes",
        )
        monkeypatch.undo()
        assert grader.grade([(task, RIGHT)])[0].passed


def test_the_code_cannot_bring_about_an_infrastructure_error(judge):
    """Else a policy could take the samples that it would fail out of their groups."""
    for crash in (
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import signal\nsignal.raise_signal(signal.SIGKILL)",
        "import os\nos.abort()",
        "import fcntl, os, socket\na, b = socket.socketpair()\n"
        "for command, value in ((10, 9), (8, os.getpid()), (4, 0x2802)):\n"
        "    try: fcntl.fcntl(a, command, value)\n    except OSError: pass\nb.send(b'x')",
        "import os\nos._exit(137)",
        "import os\nos.closerange(3, 256)",
        "import ctypes\nctypes.string_at(0)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))",
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'unsealed\\n' * 99)\n    except OSError: pass",
    ):
        verdict = judge(crash + "\ndef solve(numbers):\n    return None")
        assert verdict.reward == 0.0, (crash, verdict)


def test_closing_leaves_no_process_and_no_descriptor(task):
    descriptors, others = os.listdir("/proc/self/fd"), set(children(os.getpid()))
    with CodeGrader(workers=2) as grader:
        grader.grade(
            [(task, RIGHT), (task, "while True: pass\ndef solve(): pass"), (task, "import os; os.abort()")] * 2
        )
        workers = set(children(os.getpid())) - others
        own = workers.union(*map(descendants, workers))
    assert len(own) >= 4
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in own))


def test_many_gradings_leave_no_descriptor_behind(grader, task):
    grader.grade([(task, RIGHT)] * 4)
    before = len(os.listdir("/proc/self/fd"))
    grader.grade([(task, RIGHT), (task, WRONG), (task, "import os; os._exit(0)\ndef solve(): pass")] * 20)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_workers_end_with_a_killed_trainer(package_alone):
    script = (
        package_alone
        + "from entrostat.grading import CodeGrader\ngrader = CodeGrader(workers=2)\nprint(flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        trainer.stdout.readline()
        workers = descendants(trainer.pid)
        trainer.kill()
    assert len(workers) >= 4
    assert wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_another_thread_may_end_the_batch_and_the_grader_stays_usable(task):
    with CodeGrader(workers=2, timeout=0.5) as grader:
        threading.Timer(0.3, grader.interrupt).start()
        verdicts = grader.grade([(task, "def solve(numbers):\n    while True: pass")] * 100)
        assert verdicts[-1].outcome is Outcome.INFRASTRUCTURE_ERROR
        assert grader.grade([(task, RIGHT)])[0].passed


def test_an_interrupt_ends_the_batch_and_leaves_the_grader_usable(task):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell begins with it ignored
    with CodeGrader(workers=2, timeout=0.5) as grader:
        main = threading.main_thread().ident
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            grader.grade([(task, "def solve(numbers):\n    while True: pass")] * 100)
        assert time.monotonic() - before < 20  # all hundred take 25 seconds and more
        assert grader.grade([(task, RIGHT)])[0].passed


def test_details_are_printable_whatever_the_code_says(judge):
    verdict = judge("def solve(numbers):\n    raise ValueError('\\x1b[2J\\x00\\n\\ud800' + 'x' * 10_000)")
    assert verdict.detail.startswith("ValueError:")
    assert verdict.detail.isprintable()
    assert len(verdict.detail) <= 500


def test_a_closed_grader_says_so(task):
    grader = CodeGrader(workers=1)
    grader.close()
    grader.close()
    with pytest.raises(ValueError, match="closed"):
        grader.grade([(task, RIGHT)])
