"""What comes next does not tell code whether its last answer was right, and random tests cannot be foreseen."""

from __future__ import annotations

import os
import random
import stat
import threading

import pytest

from entrostat.grading import CodeGrader, Outcome
from entrostat.grading.judging import CallTests, prepare, to_its_end
from entrostat.grading.worker import Failure, read_or_make
from entrostat.tasks import Call, ScriptTask, Task


class Recorded:
    """Interpreters that answer as told and remember what was asked when."""

    def __init__(self, *answers: str | Failure) -> None:
        self.answers = list(answers)
        self.events: list[str] = []

    def start(self) -> Recorded:
        return self

    def seed(self, *parts: str) -> int:
        return 0

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *exception: object) -> None:
        self.events.append("ended")

    def load(self, code: str) -> None:
        pass

    def ask(self, kind: str, request: str) -> str:
        self.events.append("asked")
        answer = self.answers.pop(0)
        if isinstance(answer, Failure):
            raise answer
        return answer


THREE = Task("three", "", "solve", tuple(Call((n,), n) for n in range(3)))


def judged(interpreters: Recorded) -> str:
    try:
        return prepare([(THREE, "def solve(n): pass")])[0].tests.judge(interpreters, "code")
    except Failure as failure:
        return str(failure.outcome)


@pytest.mark.parametrize("wrong", range(3))
def test_every_call_comes_and_nothing_is_compared_before_the_code_has_ended(wrong, monkeypatch):
    interpreters = Recorded(*("7" if n == wrong else str(n) for n in range(3)))
    check = CallTests.check

    def judging(tests: CallTests, number: int, answer: str) -> None:
        interpreters.events.append("judged")
        check(tests, number, answer)

    monkeypatch.setattr(CallTests, "check", judging)
    assert judged(interpreters) == Outcome.WRONG
    assert interpreters.events == ["asked"] * 3 + ["ended"] + ["judged"] * (wrong + 1)


def test_the_first_failure_is_the_verdict():
    late = Failure(Outcome.TIMEOUT, "no answer")
    assert judged(Recorded("7", late)) == Outcome.WRONG
    assert judged(Recorded("0", late)) == Outcome.TIMEOUT


def test_answers_that_wait_to_be_compared_take_no_more_than_right_ones_could():
    kept: list[str] = []
    tests = prepare([(THREE, "def solve(n): pass")])[0].tests
    original = tests.check

    class Watching(CallTests):
        def check(self, number: int, answer: str) -> None:
            kept.append(answer)
            original(number, answer)

    watching = Watching(tests.digest, tests.questions, tests.preamble, tests.setup, tests.atol, tests.equality)
    with pytest.raises(Failure):
        watching.judge(Recorded("[" * 10**6, "1", "2"), "code")
    assert len(kept[0]) < 100


COUNTING = """
calls = 0
def solve(n):
    global calls
    calls += 1
    if n == 9: raise SystemError(calls)
"""


@pytest.mark.parametrize(
    "script",
    [
        "assert candidate(1) == 1\nassert candidate(2) == 2\ncandidate(9)",
        "def check(f):\n    for n in range(1, 3):\n        assert f(n) == n, 'message'\n    f(9)\ncheck(candidate)",
        "class T:\n    def run(self):\n        assert candidate(1)\n        assert not candidate(2) is None\n"
        "        candidate(9)\nT().run()",
    ],
)
def test_a_script_goes_on_after_an_assertion_that_does_not_hold(grader, script):
    verdict = grader.grade([(ScriptTask("s", "", "solve", script), COUNTING)])[0]
    assert verdict.detail == "SystemError: 3", verdict


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("assert candidate(1) == 1", Outcome.PASSED),
        ("assert candidate(1) == 2", Outcome.WRONG),
        ("for n in (1, 2):\n    assert candidate(n) == 1", Outcome.WRONG),
        ("try:\n    assert candidate(1) == 2\nexcept AssertionError:\n    assert candidate(1) == 1", Outcome.PASSED),
        ("try:\n    candidate(1) / 0\n    assert False\nexcept ZeroDivisionError:\n    pass", Outcome.PASSED),
        ("import contextlib\nwith contextlib.suppress(AssertionError):\n    assert candidate(1) == 2", Outcome.PASSED),
        ("assert candidate(1) == 2\n1 / 0", Outcome.WRONG),
        ("assert True", Outcome.UNFIT_TASK),
        ("assert False\nassert candidate(1) == 1", Outcome.WRONG),
    ],
)
def test_a_script_means_what_it_meant(grader, script, outcome):
    verdict = grader.grade([(ScriptTask("s", "", "solve", script), "def solve(n): return n")])[0]
    assert verdict.outcome is outcome, verdict


def test_a_script_that_does_not_parse_stays_as_it_is():
    for script in ("assert (", "\0", "-" * 100_000 + "1"):
        assert to_its_end(script) == script


RANDOM = ScriptTask("random", "", "solve", "import random\nassert candidate(0) == random.getrandbits(64)")
GUESSES = (
    "import random\ndef solve(n): return random.getrandbits(64)",
    "import random\nrandom.seed(0)\ndef solve(n): return random.getrandbits(64)",
)


@pytest.mark.parametrize("guess", GUESSES)
def test_random_tests_cannot_be_foreseen(grader, guess):
    assert grader.grade([(RANDOM, guess)])[0].outcome is Outcome.WRONG


def test_one_secret_gives_the_same_random_tests_again_and_another_gives_others():
    script = "import random\nassert candidate(random.getrandbits(64)) == 0"
    tell = "def solve(n): raise ValueError(n)"

    def asked(secret: bytes, code: str = tell) -> str:
        with CodeGrader(workers=1, secret=secret) as grader:
            return grader.grade([(ScriptTask("s", "", "solve", script), code)])[0].detail

    first = asked(b"a")
    assert first.startswith("ValueError")
    assert asked(b"a") == first
    assert asked(b"b") != first
    assert asked(b"a", tell + "  # other code") != first


def test_the_secret_is_made_once_for_all_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "new" / "key"
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(read_or_make(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["key"]
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="holds 5 bytes"):
        read_or_make(path)
    assert path.read_bytes() == b"short"


def test_the_seed_of_the_code_s_own_random_stays_fixed(grader):
    random.seed(0)
    task = Task("own", "", "solve", (Call((), random.getrandbits(64)),))
    assert grader.grade([(task, "import random\ndef solve(): return random.getrandbits(64)")])[0].passed
