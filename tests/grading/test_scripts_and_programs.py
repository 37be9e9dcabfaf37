"""Assertion scripts in a second interpreter, and programs judged by what they print."""

from __future__ import annotations

import pytest

from entrostat.grading import CodeGrader, Outcome
from entrostat.grading.judging import Comparison
from entrostat.tasks import Exchange, ProgramTask, ScriptTask, TaskError


@pytest.fixture
def examine(grader):
    def run(code, script, preamble=""):
        task = ScriptTask("s", "", "f", script, preamble)
        return grader.grade([(task, code)])[0]

    return run


@pytest.fixture
def execute(grader):
    def run(code, *exchanges, atol=None):
        task = ProgramTask("p", "", tuple(Exchange(*pair) for pair in exchanges), atol=atol)
        return grader.grade([(task, f"```python\n{code}\n```")])[0]

    return run


ADD = "def f(a, b=1):\n    return a + b"


@pytest.mark.parametrize(
    ("code", "script", "outcome"),
    [
        (ADD, "assert f(1) == 2\nassert candidate(1, b=5) == 6", Outcome.PASSED),
        (ADD, "for n in range(50):\n    assert f(n) == n + 1", Outcome.PASSED),
        (ADD, "import math\nassert math.isclose(f(0.1, 0.2), 0.3)", Outcome.PASSED),
        (ADD, "assert f(f(f(1))) == 4", Outcome.PASSED),
        (ADD, "assert f((1,), (2,)) == (1, 2)", Outcome.PASSED),
        (ADD, "assert list(f({}.get('x', []), [2])) == [2]", Outcome.PASSED),
        (ADD, "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", Outcome.PASSED),
        (ADD, "assert f(1) == 3", Outcome.WRONG),
        (ADD, "assert f(1).upper()", Outcome.WRONG),
        (ADD, "f(1)\nraise SystemExit(0)", Outcome.WRONG),
        (ADD, "f(1, 'a')", Outcome.RUNTIME_ERROR),
        ("def f(: pass", "f(1)", Outcome.SYNTAX_ERROR),
        ("def f(a):\n    while True: pass", "f(1)", Outcome.TIMEOUT),
        ("def f(a):\n    return f", "f(1)", Outcome.WRONG),
        ("def f(a):\n    import os; os._exit(0)", "f(1)", Outcome.RUNTIME_ERROR),
        (ADD, "while f(1): pass", Outcome.TIMEOUT),
    ],
)
def test_a_script_decides_by_the_answers_it_gets(examine, code, script, outcome):
    assert examine(code, script).outcome is outcome


@pytest.mark.parametrize("script", ["assert 1 == 1", "assert f2(1) == 2", "assert (", "1 / 0\nf(1)", "f(lambda: 0)"])
def test_a_script_that_cannot_judge_gives_no_reward_at_all(examine, script):
    verdict = examine(ADD, script)
    assert verdict.reward is None
    assert "assertions cannot be run" in verdict.detail


def test_an_answer_too_deep_to_be_passed_on_is_wrong_and_not_the_machine_s_fault(examine):
    deep = "def f(x):\n    for _ in range(98): x = [x]\n    return x"
    assert examine(deep, "assert f([[[f(1)]]]) != 0").outcome is Outcome.WRONG


def test_helpers_of_the_preamble_serve_the_script_and_the_code(examine):
    preamble = "import math\ndef inverse(x): return -x\ndef f(x): pass"
    assert examine("def f(x):\n    return math.floor(inverse(x))", "assert inverse(f(2)) == 2", preamble).passed


def test_the_code_cannot_see_the_script_or_change_its_helpers(examine):
    code = """
import sys
def f(x):
    for module in list(sys.modules.values()):
        for name in ("check", "inverse", "assertions", "script"):
            if name in vars(module) and module.__name__ != "solution":
                return "found"
    solution = sys.modules["solution"]
    solution.inverse = lambda x: 2
    return 5
"""
    verdict = examine(code, "assert inverse(f(2)) == 2", "def inverse(x): return -x")
    assert verdict.outcome is Outcome.WRONG


ECHO = "import sys\nfor line in sys.stdin:\n    print(line.strip() * 2)"


@pytest.mark.parametrize(
    "code",
    [
        "print(int(input()) + int(input()))",
        "import sys\na, b = map(int, sys.stdin.read().split())\nsys.stdout.write(f'{a + b}\\n\\n')",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.readlines())))",
        "import os\na = os.read(0, 100)\nos.write(1, str(sum(map(int, a.split()))).encode())",
        "import sys\nsys.stdin = open(0)\nprint(sum(map(int, sys.stdin)))\nexit()",
        "import threading\ndef main(): print(int(input()) + int(input()))\nthreading.Thread(target=main).start()",
        "import atexit\natexit.register(lambda: print(sum([int(input()), int(input())])))",
        "if __name__ == '__main__':\n    print(sum(int(input()) for _ in range(2)))",
        "import sys\nsys.exit(print(int(input()) + int(input())))",
    ],
)
def test_the_usual_ways_to_read_and_print_all_work(execute, code):
    verdict = execute(code, ("1\n2\n", "3\n"), ("10\n-4", "6"))
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (ECHO, Outcome.PASSED),
        ("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')", Outcome.WRONG),
        ("print('[' * 100_000)", Outcome.WRONG),
        ("print('aa')", Outcome.WRONG),
        ("print('aa')\nprint('bb')\nprint('cc')", Outcome.WRONG),
        ("import os\nprint('aa\\nbb', flush=True)\nos._exit(0)", Outcome.RUNTIME_ERROR),
        ("print('aa\\nbb')\nraise SystemExit(1)", Outcome.RUNTIME_ERROR),
        ("print('aa\\nbb')\n1 / 0", Outcome.RUNTIME_ERROR),
        ("print('aa\\nbb'", Outcome.SYNTAX_ERROR),
        ("while True: print('x' * 10**6)", Outcome.RUNTIME_ERROR),
        ("print('x' * 10**7)", Outcome.OUTPUT_LIMIT),
        ("while True: pass", Outcome.TIMEOUT),
        ("import threading\nthreading.Event().wait()", Outcome.TIMEOUT),
        ("import sys\nsys.stdout.close()", Outcome.WRONG),
        ("import sys\nsys.stdout.close()\nprint('aa')", Outcome.RUNTIME_ERROR),
    ],
)
def test_a_program_is_judged_by_all_that_it_prints(execute, code, outcome):
    assert execute(code, ("a\nb\n", "aa\nbb\n")).outcome is outcome


def test_every_run_is_a_fresh_one(execute):
    code = "import os\nprint(os.path.exists('/tmp/x'))\nopen('/tmp/x', 'w').close()"
    assert execute(code, ("", "False"), ("", "False")).passed


@pytest.mark.parametrize(
    ("expected", "printed", "atol", "same"),
    [
        ("1 2\n3", "1 2 \n3\n\n", None, True),
        ("1 2", "1  2", None, False),
        ("1\n2", "1 2", None, False),
        ("0.5", "0.50", None, False),
        ("0.5 x", "0.50000001 x", 1e-6, True),
        ("0.5 x", "0.51 x", 1e-6, False),
        ("1", "nan", 1e9, False),
        ("nan", "nan", 1e-6, True),
        ("inf", "-inf", 1e-6, False),
        ("50000000000000000", "50000000000000001", 1e-6, False),
        ("50000000000000001", "50000000000000000.0", 1e-6, False),
        ("1" + "0" * 390 + "1", "1" + "0" * 391, 1e-6, False),
        ("1" + "0" * 9000 + "1", "1" + "0" * 9001, 1e-6, False),
        ("1e999999999", "1e999999998", 1e-6, False),
        ("1", "1e999999999999999999999", 1e-6, False),
        ("1", "snan", 1e-6, False),
        ("5", "5.0", 0.0, True),
        ("1\n2", "1\x0c2", None, False),
        ("1", "", 1e-6, False),
        ("x", "y", 1e-6, False),
        ("", "", None, True),
    ],
)
def test_output_compares_by_lines_and_with_a_tolerance_by_words(expected, printed, atol, same):
    assert Comparison(atol).same(expected, printed) is same


@pytest.mark.parametrize(
    ("expected", "printed", "comparison", "same"),
    [
        ("1e6", "1000001", Comparison(rtol=1e-5), True),
        ("1000000", "1000001", Comparison(rtol=1e-5), False),  # two whole numbers
        ("1000000", "1000001.0", Comparison(rtol=1e-5), True),
        ("0.0", "0.000001", Comparison(rtol=1e-5), False),  # relative to what is expected
        ("-2.0", "-2.00001", Comparison(atol=1e-8, rtol=1e-5), True),
        ("inf", "5", Comparison(rtol=1.0), False),
        ("007", "7", Comparison(atol=0.0), True),
        ("-0", "0", Comparison(atol=0.0), True),
        ("-7", "7", Comparison(atol=0.0), False),
        ("+" + "9" * 5000, "9" * 5000, Comparison(atol=0.0), True),
        ("9" * 5000, "9" * 4999 + "8", Comparison(atol=1.0), False),
        ("\n1 2\n", "1 2", Comparison(), False),
        ("\n1 2\n", " 1 2", Comparison(spaces="ends"), True),
        ("1\n\n2", "1\n2", Comparison(spaces="ends"), False),
        ("1\n\n2", "1\n2", Comparison(spaces="words"), True),
        ("1  2", "1 2", Comparison(spaces="ends"), False),
        ("1  2", "1 2", Comparison(spaces="words"), True),
        ("1 2", "1\n2", Comparison(spaces="words"), False),
        ("a\nb", "b\na", Comparison(spaces="words"), False),
        ("1\r\n2\r\n", "1\n2", Comparison(), True),
    ],
)
def test_spaces_and_tolerances_count_as_the_comparison_says(expected, printed, comparison, same):
    assert comparison.same(expected, printed) is same


FACTORS = """
def check(stdin, printed, stdout):
    a, b = map(int, printed.split())
    return a * b == int(stdin) and 1 < a < int(stdin)
"""


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("print(2, 6)", Outcome.PASSED),
        ("print(4, 3)", Outcome.PASSED),
        ("print(5, 2)", Outcome.WRONG),
        ("print('a pair')", Outcome.WRONG),
        ("print('__import__(\"os\")._exit(0)')", Outcome.WRONG),
    ],
)
def test_a_checker_judges_what_cannot_be_listed(grader, code, outcome):
    task = ProgramTask("p", "", (Exchange("12", "3 4"),), checker=FACTORS)
    assert grader.grade([(task, code)])[0].outcome is outcome


def test_any_of_several_outputs_is_right(grader):
    task = ProgramTask("p", "", (Exchange("", "a", also=("b",)),))
    outcomes = [verdict.passed for verdict in grader.grade([(task, f"print('{word}')") for word in "abc"])]
    assert outcomes == [True, True, False]


def test_a_checker_that_cannot_run_makes_its_task_unfit(grader):
    verdict = grader.grade([(ProgramTask("p", "", (Exchange("", "a"),), checker="import nowhere"), "print('b')")])[0]
    assert verdict.outcome is Outcome.UNFIT_TASK
    assert verdict.reward is None
    assert "nowhere" in verdict.detail


def test_what_nobody_could_pass_is_refused_by_the_limit(grader):
    long = ProgramTask("long", "", (Exchange("", "x" * (2 << 20)),))
    with pytest.raises(TaskError, match=r"'long': a right answer has 2097152 bytes, above the limit of 1048576"):
        grader.grade([(long, "print()")])
    wide = ProgramTask("wide", "", (Exchange("x" * (17 << 20), "x"),))
    with pytest.raises(TaskError, match=r"'wide': an input and its output .* raise the grader's disk"):
        grader.grade([(wide, "print()")])
    with CodeGrader(workers=1, timeout=9.0, output=3 << 20, disk=40 << 20) as roomy:
        verdicts = roomy.grade([(long, "print('x' * (2 << 20))"), (wide, "print(input()[-1])")])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * 2


def test_whole_numbers_of_any_length_are_printed(grader):
    number = "1" + "0" * 6000
    task = ProgramTask("p", "", (Exchange(number, number),), atol=0.0)
    assert grader.grade([(task, "print(int(input()))")])[0].passed


RAISES = """
import json, unittest

class Tests(unittest.TestCase):
    def test_type(self):
        with self.assertRaises(ValueError):
            candidate("x")
    def test_text(self):
        with self.assertRaisesRegex(ZeroDivisionError, "by zero"):
            candidate(0)
    def test_json(self):
        with self.assertRaises(json.JSONDecodeError):
            candidate("json")
    def test_exit(self):
        with self.assertRaises(SystemExit):
            candidate("exit")
    def test_after(self):
        self.assertEqual(candidate(2), 0.5)

found = unittest.TestResult()
unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(found)
assert found.wasSuccessful() and found.testsRun == 5, found.failures + found.errors
"""
INVERSE = """
import json, sys
class Odd(ValueError): pass
def solve(x):
    if x == "exit": sys.exit(3)
    if x == "json": return json.loads("{")
    if isinstance(x, str): raise Odd("no text")
    return 1 / x
"""


def test_what_the_code_raises_is_raised_in_the_script(grader):
    task = ScriptTask("inverse", "", "solve", RAISES)
    wrong = (
        INVERSE.replace("raise Odd", "raise KeyError"),
        INVERSE.replace("1 / x", "1 / (x or 1)"),
        "def solve(x): return 0.5",
    )
    passed, *failed = grader.grade([(task, code) for code in (INVERSE, *wrong)])
    assert passed.passed, passed
    assert {verdict.reward for verdict in failed} == {0.0}


@pytest.mark.parametrize(
    "raised",
    [
        "StopIteration()",
        "StopAsyncIteration()",
        "GeneratorExit()",
        "KeyboardInterrupt()",
        "__import__('unittest').SkipTest('passed')",
        "__import__('unittest').case._ShouldStop()",
        "type('SkipTest', (Exception,), {'__module__': 'unittest.case'})('passed')",
        "type('Stop', (StopIteration,), {})()",
        "type('Long', (ValueError,), {'__str__': lambda self: 'x' * 10**7})()",
        "type('Broken', (ValueError,), {'__str__': lambda self: 1 / 0})()",
        "ExceptionGroup('passed', [StopIteration()])",
    ],
)
@pytest.mark.parametrize(
    "script", ["assert all(map(candidate, [1, 2, 3]))", "assert [*map(candidate, [1])] == []", None]
)
def test_no_exception_of_the_code_ends_a_test_early(grader, raised, script):
    script = script or (
        "import unittest\nclass Tests(unittest.TestCase):\n    def test(self): self.assertEqual(candidate(1), 1)\n"
        "found = unittest.TestResult()\nunittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(found)\n"
        "assert found.wasSuccessful()\n"
    )
    task = ScriptTask("t", "", "solve", script)
    verdict = grader.grade([(task, f"def solve(x): raise {raised}")])[0]
    assert verdict.reward == 0.0, verdict
