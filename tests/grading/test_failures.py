"""When the machine fails, no verdict is invented; when the grader ends, nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from entrostat.grading import CodeGrader, Outcome, WorkerError
from entrostat.grading.worker import Interpreter, Worker

RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n"
WRONG = "def solve(numbers):\n    return numbers\n"


def descendants(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            children += [int(child) for child in listing.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


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
        assert {v.outcome for v in verdicts[::2]} <= {Outcome.PASSED, Outcome.INFRASTRUCTURE_ERROR}
        assert {v.outcome for v in verdicts[1::2]} <= {Outcome.WRONG, Outcome.INFRASTRUCTURE_ERROR}
        assert sum(v.outcome is Outcome.INFRASTRUCTURE_ERROR for v in verdicts) < 20


def test_a_grading_killed_from_outside_is_tried_once_more(task):
    slow_first = "import time\ntime.sleep(0.5)\n" + RIGHT
    with CodeGrader(workers=1) as grader:
        timer = threading.Timer(0.25, lambda: os.kill(descendants(os.getpid())[-1], signal.SIGKILL))
        timer.start()
        verdict = grader.grade([(task, slow_first)])[0]
        timer.join()
    assert verdict.passed
    assert verdict.seconds > 0.5


def test_a_machine_that_keeps_failing_gives_no_reward_and_no_punishment(task, monkeypatch):
    def fail(self: Worker) -> Interpreter:
        raise WorkerError("out of processes")

    with CodeGrader(workers=1) as grader:
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
    descriptors, processes = os.listdir("/proc/self/fd"), descendants(os.getpid())
    with CodeGrader(workers=2) as grader:
        grader.grade(
            [(task, RIGHT), (task, "while True: pass\ndef solve(): pass"), (task, "import os; os.abort()")] * 2
        )
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    assert wait_until(lambda: set(descendants(os.getpid())) <= set(processes))


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
    assert len(workers) == 4
    assert wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_an_interrupt_ends_the_batch_and_leaves_the_grader_usable(task):
    with CodeGrader(workers=2, timeout=0.5) as grader:
        main = threading.main_thread().ident
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            grader.grade([(task, "def solve(numbers):\n    while True: pass")] * 100)
        assert time.monotonic() - before < 5
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
