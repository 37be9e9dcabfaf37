"""What a grading says of honest code, right and wrong."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from entrostat.grading import CodeGrader, Outcome
from entrostat.tasks import Call, Task, TaskError

RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n"


def one_call(expected, *args, atol=None, **kwargs):
    return Task(id="t", prompt="", entry_point="solve", tests=(Call(args, expected, kwargs),), atol=atol)


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        (RIGHT, Outcome.PASSED),
        ("Sure:\n```python\n" + RIGHT + "```\nDone.", Outcome.PASSED),
        ("def solve(numbers):\n    return numbers", Outcome.WRONG),
        ("def solve(numbers):\n    pass", Outcome.WRONG),
        ("def solve(numbers):\n    return numbers[99]", Outcome.RUNTIME_ERROR),
        ("import nothing_of_this_name\n" + RIGHT, Outcome.RUNTIME_ERROR),
        ("def solve(numbers)\n    return 1", Outcome.SYNTAX_ERROR),
        ("def solve(numbers):\n    return '\x00'", Outcome.SYNTAX_ERROR),
        ("```python\nprint(1)\n```", Outcome.RUNTIME_ERROR),
        ("I cannot do this.", Outcome.NO_CODE),
        ("", Outcome.NO_CODE),
        ("def solve(numbers):\n    while True: pass", Outcome.TIMEOUT),
        ("def solve(numbers):\n    return [0] * 10**9", Outcome.MEMORY),
        ("def solve(numbers):\n    return 'x' * 10**7", Outcome.OUTPUT_LIMIT),
        ("def solve(numbers):\n    return solve(numbers)", Outcome.RUNTIME_ERROR),
    ],
)
def test_each_way_to_end_has_its_outcome(judge, completion, outcome):
    verdict = judge(completion)
    assert verdict.outcome is outcome, verdict
    assert verdict.passed is (outcome is Outcome.PASSED)
    assert verdict.reward == (1.0 if outcome is Outcome.PASSED else 0.0)


def test_verdicts_keep_the_order_of_their_pairs(grader, task):
    wrong = "def solve(numbers):\n    return 0"
    pattern = [i % 3 == 0 for i in range(40)]
    verdicts = grader.grade([(task, RIGHT if right else wrong) for right in pattern])
    assert [v.passed for v in verdicts] == pattern


@pytest.mark.parametrize(
    ("expected", "answer", "passes"),
    [
        ("1", "1", True),
        ("1", "True", False),
        ("1", "1.0", False),
        ("True", "1", False),
        ("[1, 2]", "(1, 2)", False),
        ("(1, 2)", "(1, 2)", True),
        ("0.0", "-0.0", True),
        ("float('nan')", "float('nan')", True),
        ("0.3", "0.1 + 0.2", False),
        ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", True),
        ("{1, 2, 3}", "{3, 2, 1}", True),
        ("{1, 2, 3}", "frozenset([3, 2, 1])", False),
        ("10**30", "10**30", True),
        ("10**5000", "10**5000", True),
        ("10**30", "10**30 + 1", False),
        ("'\\ud800'", "'\\ud800'", True),
        ("b'\\x00\\xff'", "b'\\x00\\xff'", True),
        ("None", "None", True),
        ("1 + 2j", "1 + 2j", True),
        ("[[], [[]], ()]", "[[], [[]], ()]", True),
    ],
)
def test_answers_compare_with_exact_types(grader, expected, answer, passes):
    verdict = grader.grade([(one_call(eval(expected)), f"def solve():\n    return {answer}")])[0]
    assert verdict.outcome is (Outcome.PASSED if passes else Outcome.WRONG)


def test_a_tolerance_applies_to_floats_at_any_depth_and_to_nothing_else(grader):
    cases = [([1.0, {"a": (0.3,)}], "[1.0 + 1e-9, {'a': (0.1 + 0.2,)}]", True), (1.0, "1.1", False), (1, "1.0", False)]
    cases += [(10**20, "10**20 + 1", False), (float("inf"), "float('inf')", True), (float("inf"), "1e308", False)]
    for expected, answer, passes in cases:
        verdict = grader.grade([(one_call(expected, atol=1e-6), f"def solve():\n    return {answer}")])[0]
        assert verdict.passed is passes, (expected, answer)


def test_arguments_arrive_with_their_types_and_keywords(grader):
    code = "def solve(*args, **kwargs):\n    return repr((args, kwargs))"
    args = (1, 1.0, True, None, "é\ud800", b"\xff", (1,), [2], {3}, {(4, "k"): -0.0}, 2**70, 3j)
    task = one_call(repr((args, {"key": [1]})), *args, key=[1])
    assert grader.grade([(task, code)])[0].passed


def test_changing_an_argument_leaves_the_task_as_it_was(grader):
    numbers = [3, 1, 2]
    task = Task(id="t", prompt="", entry_point="solve", tests=(Call((numbers,), None), Call((numbers,), None)))
    code = "def solve(numbers):\n    assert numbers == [3, 1, 2]\n    numbers.clear()"
    assert grader.grade([(task, code)])[0].passed
    assert numbers == [3, 1, 2]


def test_one_wrong_answer_among_right_ones_earns_nothing(judge):
    assert (
        judge("def solve(numbers):\n    return [16, 17] if 1 in numbers else " + RIGHT.split("return ")[1]).reward == 0
    )


def test_honest_use_of_the_standard_library_works(grader):
    code = """
import asyncio, dataclasses, decimal, json, pickle, random, resource, signal, sqlite3, ssl, statistics, sys
import tempfile, threading
from typing import NamedTuple
sys.setrecursionlimit(100_000)
resource.setrlimit(resource.RLIMIT_STACK, resource.getrlimit(resource.RLIMIT_STACK))
@dataclasses.dataclass
class Point:
    x: int
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
async def later(): return 5
def solve():
    found = []
    thread = threading.Thread(target=found.append, args=(1,))
    thread.start(); thread.join()
    with tempfile.TemporaryFile() as file:
        file.write(b"ab"); file.seek(0); found.append(file.read())
    found.append(pickle.loads(pickle.dumps(Point(3))).x)
    found.append(deep(20_000))
    found.append(asyncio.run(later()))
    found.append(sqlite3.connect(":memory:").execute("select 7").fetchone()[0])
    found.append(str(decimal.Decimal("0.10")))
    print("noise", file=sys.stdout); sys.stderr.write("more")
    return found
"""
    assert grader.grade([(one_call([1, b"ab", 3, 20_000, 5, 7, "0.10"]), code)])[0].passed


def test_the_main_block_is_not_run(judge):
    assert judge(RIGHT + "if __name__ == '__main__':\n    raise SystemExit(1)").passed


def test_verdicts_do_not_depend_on_chance(grader):
    code = "import random\ndef solve():\n    return [random.random(), list({'a', 'b', 'c', 'd'}), hash('x')]"
    details = {verdict.detail for verdict in grader.grade([(one_call(None), code)] * 6)}
    assert len(details) == 1


def test_the_memo_repeats_verdicts_but_never_a_timeout(task):
    with CodeGrader(workers=1, timeout=0.3, memo=10) as grader:
        first, again = grader.grade([(task, RIGHT)] * 2)
        assert again is first
        slow = "import time\ndef solve(numbers):\n    time.sleep(9)"
        before = time.monotonic()
        assert [v.outcome for v in grader.grade([(task, slow)] * 2)] == [Outcome.TIMEOUT] * 2
        assert time.monotonic() - before > 0.6


def test_the_memo_tells_tasks_with_equal_code_apart():
    with CodeGrader(workers=1, memo=10) as grader:
        code = "def solve():\n    return 1"
        assert [v.passed for v in grader.grade([(one_call(1), code), (one_call(2), code)])] == [True, False]


def test_what_is_not_begun_by_the_deadline_is_no_reward_at_all(grader, task):
    slow = "def solve(numbers):\n    while True: pass"
    verdicts = grader.grade([(task, slow)] * 6, deadline=0.5)
    assert verdicts[-1].outcome is Outcome.INFRASTRUCTURE_ERROR
    assert verdicts[-1].reward is None


def test_a_stream_takes_no_more_than_its_window_ahead(grader, task):
    taken = []

    def pairs():
        for number in range(100):
            taken.append(number)
            yield task, RIGHT if number % 2 else "def solve(numbers): pass"

    verdicts = grader.stream(pairs(), window=10)
    assert [next(verdicts).passed for _ in range(11)] == [bool(number % 2) for number in range(11)]
    assert len(taken) == 20


def test_the_example_of_the_documentation_does_what_it_says(capsys):
    text = (Path(__file__).parents[2] / "docs" / "grading.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    assert capsys.readouterr().out.strip() in text


def test_a_test_that_is_not_plain_data_is_refused_before_any_grading(grader):
    with pytest.raises(TaskError, match=r"task 't': tests holds a value of type object"):
        grader.grade([(one_call(object()), RIGHT)])


@pytest.mark.parametrize(
    "setting", [{"workers": 0}, {"timeout": 0}, {"memory": 1}, {"output": 1}, {"isolation": "none"}, {"memo": -1}]
)
def test_a_setting_out_of_range_is_named_with_what_is_allowed(setting):
    with pytest.raises(ValueError, match=rf"{next(iter(setting))} is .*; allowed: "):
        CodeGrader(**setting)
