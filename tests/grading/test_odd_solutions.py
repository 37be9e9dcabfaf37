# ruff: noqa: E501, RUF001  (one solution per line)
"""A hundred odd but right solutions, and no false fail among them."""

from __future__ import annotations

import functools

import pytest

from entrostat.tasks import Call, Exchange, ProgramTask, ScriptTask, Task

DEFINITIONS = [
    "def solve(x): return x + 1",
    "solve = lambda x: x + 1",
    "solve: object = lambda x: x + 1",
    "other = solve = lambda x: x + 1",
    "import functools, operator\nsolve = functools.partial(operator.add, 1)",
    "from functools import partial\nfrom operator import add\nsolve = partial(add, 1)",
    "solve = (1).__add__",
    "class solve(int):\n    def __new__(cls, x): return x + 1",
    "class Solution:\n    def solve(self, x): return x + 1",
    "class Solution:\n    @staticmethod\n    def solve(x): return x + 1",
    "class Solution:\n    @classmethod\n    def solve(cls, x): return cls.one() + x\n    @classmethod\n    def one(cls): return 1",
    "class Adder:\n    def __call__(self, x): return x + 1\nsolve = Adder()",
    "def outer():\n    one = 1\n    def inner(x): return x + one\n    return inner\nsolve = outer()",
    "import functools\n@functools.lru_cache(maxsize=None)\ndef solve(x): return x + 1",
    "import functools\n@functools.wraps(len)\ndef wrap(x): return x + 1\nsolve = wrap",
    "def solve(x, *rest, one=1, **more): return x + one",
    "def solve(x, /): return x + 1",
    "def solve(*args): return sum(args) + 1",
    "exec('def solve(x): return x + 1')",
    "globals()['solve'] = lambda x: x + 1",
    "if True:\n    def solve(x): return x + 1\nelse:\n    def solve(x): return x",
    "try:\n    import nowhere\nexcept ImportError:\n    def solve(x): return x + 1",
    "def solve(x):\n    print('noise')\n    return x + 1",
    "import sys\ndef solve(x):\n    sys.stdout.write('noise')\n    sys.stderr.write('noise')\n    return x + 1",
    "def solve(x):\n    try:\n        raise ValueError\n    except ValueError:\n        return x + 1\n    finally:\n        pass",
    "def solve(x):\n    def up(n, to): return n if n == to else up(n + 1, to)\n    return up(0, x + 1)",
    "def solve(x):\n    match x:\n        case int(): return x + 1\n        case _: return None",
    "def solve(x):\n    if (y := x + 1): return y\n    return 0",
    "def solve(x): return next(n for n in iter(int, 1)) + x + 1",
    "def solve(x): return max(x + 1, x)",
    "def solve(x): return -~x",
    "def solve(x): return len([*range(x), None])",
    "def solve(x): return int(str(x + 1))",
    "from fractions import Fraction\ndef solve(x): return int(Fraction(x) + 1)",
    "from decimal import Decimal\ndef solve(x): return int(Decimal(x) + 1)",
    "import asyncio\ndef solve(x):\n    async def add(): return x + 1\n    return asyncio.run(add())",
    "import threading\ndef solve(x):\n    found = []\n    t = threading.Thread(target=lambda: found.append(x + 1))\n    t.start(); t.join()\n    return found[0]",
    "import dataclasses\n@dataclasses.dataclass\nclass Box:\n    value: int\ndef solve(x): return Box(x + 1).value",
    "import enum\nclass One(enum.IntEnum):\n    ONE = 1\ndef solve(x): return int(x + One.ONE)",
    "from __future__ import annotations\ndef solve(x: List[Nothing]) -> Never: return x + 1",
    "from typing import *\nT = TypeVar('T')\ndef solve(x: Optional[int]) -> Union[int, None]: return x + 1",
    "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n\ndef solve(x): return x + 1",
    '"""A module."""\n\n\ndef solve(x):\n    """Add.\n\n    >>> solve(1)\n    2\n    """\n    return x + 1\n\n\nif __name__ == "__main__":\n    import doctest\n    doctest.testmod()',
    "ſolve = 1\ndef ｓｏｌｖｅ(x): return x + 1",
    "größe = 1\ndef solve(x): return x + größe",
    "def solve(x):\n\treturn x + 1",
    "def solve(x): return x + 1;",
    "def solve(x):\r\n    return x + 1\r\n",
    "def solve(x): return \\\n    x + 1",
    "def solve(x):\n    return (x\n+ 1)",
    "def solve(x):\n    text = '''\n```\nreturn 0\n```\n'''\n    return x + 1",
    "def solve(x):\n    global calls\n    calls = globals().get('calls', 0) + 1\n    return x + 1",
    "def solve(x): yield_ = x; return yield_ + 1",
    "import math, collections, itertools, heapq, bisect, re, string, random\ndef solve(x): return x + 1",
    "import random\nrandom.seed(5)\ndef solve(x): return x + 1 + 0 * random.randrange(9)",
    "def solve(x):\n    import sys\n    sys.setrecursionlimit(10**6)\n    def down(n): return 1 if n == 0 else down(n - 1)\n    return x + down(3000)",
]  # fmt: skip
ANSWERS = [
    ([1, 2], "(1, 2)", "json", None),
    ([[1, 2]], "[(1, 2)]", "json", None),
    ((1, 2), "(1, 2)", "exact", None),
    (1, "1.0", "json", None),
    (1, "True", "python", None),
    (1.0, "1", "python", None),
    ({"a": 1, "b": 2}, "{'b': 2, 'a': 1}", "exact", None),
    ({"a": [1]}, "{'a': (1,)}", "json", None),
    ({1: 2}, "__import__('collections').Counter([1, 1])", "json", None),
    ({1: [2]}, "(lambda d: (d[1].append(2), d)[1])(__import__('collections').defaultdict(list))", "json", None),
    ({1: 2}, "__import__('collections').OrderedDict([(1, 2)])", "python", None),
    ({1, 2}, "frozenset((2, 1))", "python", None),
    ({0.0, 1.0}, "{-0.0, 1.0}", "exact", None),
    (0.3, "0.1 + 0.2", "exact", 1e-9),
    ([0.3, "a"], "[0.1 + 0.2, 'a']", "json", 1e-9),
    ({0.3: "a", 2.0: "b"}, "{2.0: 'b', 0.1 + 0.2: 'a'}", "json", 1e-9),
    ({(0.3, 1), (0.9, 2)}, "{(0.9, 2), (0.1 + 0.2, 1)}", "exact", 1e-9),
    (float("nan"), "float('nan')", "exact", None),
    (float("inf"), "10**400 * 1.0 if False else float('inf')", "exact", 1e-9),
    (10**5000, "10**5000", "exact", None),
    (-(2**63) - 1, "-2**63 - 1", "exact", None),
    (2**53 + 1, "2**53 + 1", "json", None),
    (1 + 2j, "complex(1, 2)", "exact", None),
    (b"\x00\xff", "bytes([0, 255])", "exact", None),
    ("\ud800", "chr(0xd800)", "exact", None),
    ("é\u2028\x00", "'\\xe9\\u2028\\0'", "exact", None),
    (None, "None", "exact", None),
    ([], "[]", "json", None),
    ([[[[[]]]]], "[[[[[]]]]]", "exact", None),
    ({1: "a", 5: "b"}, "{True: 'a', 5: 'b'}", "python", None),
]
PROGRAMS = [
    ("3\n", "1\n2\n3\n", "for i in range(int(input())): print(i + 1)", {}),
    ("3\n", "1\n2\n3\n", "import sys\nsys.stdout.write('1\\n2\\n3')", {}),
    ("3\n", "1 2 3", "print(*range(1, int(input()) + 1))", {}),
    ("3\n", "1 2 3", "print(*range(1, int(input()) + 1), end=' \\n\\n')", {}),
    ("1 2\n3 4\n", "10", "import sys\nprint(sum(map(int, sys.stdin.read().split())))", {}),
    ("1 2\n3 4\n", "10", "import sys\nprint(sum(int(x) for line in sys.stdin for x in line.split()))", {}),
    ("5", "5", "print(open(0).read())", {}),
    ("5\n", "5\n", "import os\nos.write(1, os.read(0, 100))", {}),
    ("5\n", "5", "import sys\nprint(sys.stdin.buffer.readline().decode().strip())", {}),
    ("5\n", "5", "import sys\ninput = sys.stdin.readline\ndef main():\n    print(int(input()))\n    sys.exit(0)\nmain()", {}),
    ("5\n", "5", "def main(): print(input())\nif __name__ == '__main__': main()", {}),
    ("5\n", "5", "print(input())\nexit()", {}),
    ("5\n", "5", "print(input())\nraise SystemExit", {}),
    ("", "0.3333333", "print(1 / 3)", {"atol": 1e-6}),
    ("", "1000000.0", "print(1000000.5)", {"rtol": 1e-6}),
    ("", "Case 1: 0.50", "print('Case 1: 0.5')", {"atol": 0.0}),
    ("", "\n7", "print(7)", {"spaces": "ends"}),
    ("", "1\n2", "print(1, end='\\n\\n'); print(2)", {"spaces": "words"}),
    ("9" * 5000, "9" * 5000, "print(int(input()))", {}),
    ("", "é", "print('\\u00e9')", {}),
]  # fmt: skip


def test_there_are_a_hundred():
    assert len(DEFINITIONS) + len(ANSWERS) + len(PROGRAMS) >= 100


@pytest.fixture(scope="module")
def failed(grader):
    """The sources that do not pass, each with its verdict."""
    add = Task("add", "", "solve", (Call((1,), 2), Call((7,), 8)))
    script = ScriptTask("add", "", "solve", "assert solve(1) == 2\nassert candidate(7) == 8")
    pairs = [(task, source) for source in DEFINITIONS for task in (add, script)]
    for expected, answer, equality, atol in ANSWERS:
        task = Task("answer", "", "solve", (Call((), expected),), equality=equality, atol=atol)
        pairs.append((task, f"def solve(): return {answer}"))
    for stdin, stdout, source, settings in PROGRAMS:
        pairs.append((ProgramTask("program", "", (Exchange(stdin, stdout),), **settings), source))
    verdicts = grader.grade(pairs)
    return {source: verdict for (_, source), verdict in zip(pairs, verdicts, strict=True) if not verdict.passed}


def test_every_odd_but_right_solution_passes(failed):
    assert failed == {}


def test_the_answers_are_judged_and_not_waved_through(grader):
    wrong = functools.partial(Task, "answer", "", "solve")
    pairs = [
        (wrong((Call((), expected, also=()),), equality=equality, atol=atol), "def solve(): return 'another'")
        for expected, _, equality, atol in ANSWERS
    ]
    assert not any(verdict.passed for verdict in grader.grade(pairs))
