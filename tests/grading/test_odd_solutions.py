# ruff: noqa: E501, RUF001  (one solution per line)
"""More than a hundred odd but right solutions, and no false fail among them."""

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
    'class Solution:\n    def __init__(self): self.one = 1\n    def solve(self, x): return x + self.one',
    'class Solution:\n    @property\n    def solve(self): return lambda x: x + 1',
    'import tempfile\ndef solve(x):\n    with tempfile.NamedTemporaryFile("w+") as f:\n        f.write(str(x + 1)); f.flush()\n        return int(open(f.name).read())',
    'import sqlite3\ndef solve(x):\n    return sqlite3.connect(":memory:").execute("select ? + 1", (x,)).fetchone()[0]',
    'from concurrent.futures import ThreadPoolExecutor\ndef solve(x):\n    with ThreadPoolExecutor() as pool:\n        return sum(pool.map(int, [x, 1]))',
    'import logging, warnings\nlogging.basicConfig(level=logging.DEBUG)\ndef solve(x):\n    logging.info("x is %s", x); warnings.warn("deprecated"); logging.getLogger(__name__).error("no")\n    return x + 1',
    'import sys, threading\nthreading.stack_size(1 << 26); sys.setrecursionlimit(10**6)\ndef solve(x):\n    out = []\n    def deep(n): return 0 if n == 0 else 1 + deep(n - 1)\n    t = threading.Thread(target=lambda: out.append(deep(20000))); t.start(); t.join()\n    return x + out[0] - 19999',
    'import signal\ndef solve(x):\n    signal.signal(signal.SIGALRM, lambda *a: None); signal.alarm(1); signal.alarm(0)\n    return x + 1',
    'import secrets, uuid, os, random, hashlib\ndef solve(x): return x + 1 + 0 * (secrets.randbelow(9) + uuid.uuid4().int + os.urandom(1)[0] + random.SystemRandom().randrange(3) + hashlib.md5(b"").digest()[0])',
    'from zoneinfo import ZoneInfo\nfrom datetime import datetime\ndef solve(x): return x + (datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")).utcoffset().seconds // 7200)',
    'from datetime import datetime, timezone\nimport time, calendar\ndef solve(x): return x + (time.localtime(0).tm_year == 1970) + 0 * calendar.timegm(datetime.now(timezone.utc).timetuple())',
    'import inspect, re\ndef solve(x):\n    sig = inspect.signature(solve)\n    return x + len(sig.parameters)',
    'from math import *\nfrom itertools import *\ndef solve(x): return x + floor(pow(1.5, 1))',
    'def solve(x): return (lambda f: f(f, x))(lambda f, n: n + 1 if n > -1 else f(f, n))',
    'import functools\n@functools.singledispatch\ndef solve(x): raise TypeError\n@solve.register\ndef _(x: int): return x + 1',
    'from typing import Generic, TypeVar, Protocol, NamedTuple, overload\nT = TypeVar("T")\nclass Box(Generic[T]):\n    def __init__(self, v: T): self.v = v\nclass P(NamedTuple):\n    a: int\n@overload\ndef solve(x: int) -> int: ...\n@overload\ndef solve(x: str) -> str: ...\ndef solve(x): return Box(P(x + 1)).v.a',
    'def solve(x): return x + 1\nassert solve(1) == 2\nprint(solve(3))\nimport doctest; doctest.testmod()',
    'import unittest\ndef solve(x): return x + 1\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(solve(1), 2)\nunittest.main(argv=["x"], exit=False)',
    'try:\n    import numpy as np\nexcept ImportError:\n    np = None\ndef solve(x): return int(np.int64(x) + 1) if np else x + 1',
    'import pathlib, os, json, csv, pickle, gzip, zipfile, shutil, glob\ndef solve(x):\n    p = pathlib.Path("d/e"); p.mkdir(parents=True, exist_ok=True); (p / "a.json").write_text(json.dumps(x + 1))\n    with gzip.open("a.gz", "wb") as f: f.write(pickle.dumps(x))\n    with zipfile.ZipFile("a.zip", "w") as z: z.write("a.gz")\n    shutil.copy("a.gz", "b.gz"); os.rename("b.gz", "c.gz")\n    y = json.loads(pathlib.Path(glob.glob("d/**/*.json", recursive=True)[0]).read_text()); shutil.rmtree("d")\n    return y',
    'import asyncio\nasync def one(): await asyncio.sleep(0.001); return 1\ndef solve(x):\n    async def main():\n        a, b = await asyncio.gather(one(), asyncio.to_thread(lambda: x))\n        return a + b\n    return asyncio.run(main())',
    'import asyncio, threading\ndef solve(x):\n    out = []\n    def run():\n        async def main(): return await asyncio.to_thread(lambda: 1)\n        out.append(asyncio.run(main()))\n    ts = [threading.Thread(target=run) for _ in range(6)]\n    for t in ts: t.start()\n    for t in ts: t.join()\n    return x + sum(out) - 5',
    'import asyncio\nloops = [asyncio.new_event_loop() for _ in range(5)]\ndef solve(x):\n    async def main(): return await asyncio.to_thread(lambda: x + 1)\n    return loops[4].run_until_complete(main())',
    'import pickle, copy, weakref\nclass Node:\n    def __init__(self, v): self.v = v\n    def __del__(self): pass\ndef solve(x):\n    n = pickle.loads(pickle.dumps(copy.deepcopy(Node(x + 1)))); weakref.ref(n)()\n    return n.v',
    'import ctypes, struct, array\ndef solve(x): return struct.unpack("i", bytes(ctypes.c_int(x + 1)))[0]',
    'def solve(x, seen={}):\n    if x not in seen: seen[x] = x + 1\n    return seen[x]',
    'import resource, sys\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\nsys.setrecursionlimit(10**6)\ndef solve(x): return x + 1',
    'import os, platform, socket, multiprocessing, getpass\ndef solve(x): return x + 1 + 0 * len(platform.system() + socket.gethostname() + platform.python_version()) * (os.cpu_count() or 1)',
    'import faulthandler, gc, sys\nfaulthandler.enable(); gc.disable(); sys.set_int_max_str_digits(0); sys.setswitchinterval(1)\ndef solve(x): return x + 1',
    'import ast\nsolve = eval(compile(ast.parse("lambda x: x + 1", mode="eval"), "<made>", "eval"))',
    'import os\nos.system("clear")\ndef solve(x): return x + 1',
    'from solution import *\nimport solution\ndef solve(x): return x + 1',
    'import __main__, sys\ndef solve(x): return x + 1 if sys.modules[__name__].solve is solve else 0',
    'import heapq, graphlib, statistics, textwrap, difflib, colorsys, cmath, numbers, secrets, string, unicodedata, urllib.parse, html, xml.etree.ElementTree, email, http.client, ipaddress, base64, binascii, bz2, lzma, zlib, hmac, ssl, argparse, optparse, configparser, shlex, cmd, sched, queue, contextvars, selectors, mmap, codecs, timeit, cProfile, trace, tracemalloc, dis, pprint, reprlib, types, abc, importlib.resources, pkgutil, tokenize, symtable, locale, gettext, calendar, getopt, fileinput, filecmp, tarfile, stat, fnmatch, linecache, smtplib, wave, plistlib, netrc, tomllib\ndef solve(x): return x + 1',
    'import timeit, tracemalloc, cProfile\ntracemalloc.start()\ndef solve(x):\n    timeit.timeit("1 + 1", number=3); p = cProfile.Profile(); p.enable(); p.disable()\n    return x + 1',
    'import contextvars, contextlib\nv = contextvars.ContextVar("v", default=1)\nclass C(contextlib.ContextDecorator):\n    def __enter__(self): return self\n    def __exit__(self, *e): return True\n@C()\ndef solve(x): return x + v.get()',
    'from abc import ABC, abstractmethod\nclass Base(ABC):\n    @abstractmethod\n    def solve(self, x): ...\nclass Solution(Base):\n    def solve(self, x): return x + 1',
    'class Solution(object):\n    def solve(self, x):\n        """\n        :type x: int\n        :rtype: int\n        """\n        return self.helper(x)\n    def helper(self, x): return x + 1\ndef solve(x): return Solution().solve(x)',
    'import time, urllib.request\ndef solve(x):\n    try: urllib.request.urlopen("http://localhost:1", timeout=1)\n    except OSError: pass\n    return x + 1',
    'import subprocess\ndef solve(x):\n    try: return int(subprocess.check_output(["expr", str(x), "+", "1"]))\n    except OSError: return x + 1',
    'import multiprocessing\ndef solve(x):\n    lock = None\n    try: lock = multiprocessing.Lock()\n    except OSError: pass\n    return x + 1',
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
    ('5\n', '5', "import sys\nprint(open('/dev/stdin').read())", {}),
    ('5\n', '5', 'import fileinput\nfor line in fileinput.input(): print(line.strip())', {}),
    ('5\n', '5', 'import sys\nsys.__stdout__.write(sys.__stdin__.readline())', {}),
    ('5\n', '5', 'import mmap\nprint(mmap.mmap(0, 0, access=mmap.ACCESS_READ).readline().decode())', {}),
    ('5\n', '5', 'import os, io\nprint(io.BytesIO(os.read(0, os.fstat(0).st_size)).readline().decode())', {}),
    ('5\n', '5', "import os, sys\nfrom io import BytesIO, IOBase\nBUFSIZE = 8192\nclass FastIO(IOBase):\n    newlines = 0\n    def __init__(self, file):\n        self._fd = file.fileno(); self.buffer = BytesIO(); self.writable = 'x' in file.mode or 'r' not in file.mode\n        self.write = self.buffer.write if self.writable else None\n    def readline(self):\n        while self.newlines == 0:\n            b = os.read(self._fd, max(os.fstat(self._fd).st_size, BUFSIZE)); self.newlines = b.count(b'\\n') + (not b)\n            ptr = self.buffer.tell(); self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)\n        self.newlines -= 1\n        return self.buffer.readline()\n    def flush(self):\n        if self.writable:\n            os.write(self._fd, self.buffer.getvalue()); self.buffer.truncate(0), self.buffer.seek(0)\nclass IOWrapper(IOBase):\n    def __init__(self, file):\n        self.buffer = FastIO(file); self.flush = self.buffer.flush; self.writable = self.buffer.writable\n        self.write = lambda s: self.buffer.write(s.encode('ascii'))\n        self.readline = lambda: self.buffer.readline().decode('ascii')\nsys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)\ninput = lambda: sys.stdin.readline().rstrip('\\r\\n')\nprint(input())", {}),
    ('5\n', '5\n', "print(input(), end='\\r\\n')", {}),
    ('5\n', '5', 'import sys\nclass W:\n    def __init__(s, o): s.o = o\n    def write(s, t): s.o.write(t)\n    def flush(s): s.o.flush()\nsys.stdout = W(sys.stdout)\nprint(input())', {}),
    ('5\n', '5', "import os\nos.system('cls')\nprint(input())", {}),
    ('5\n', '5', 'import threading, sys\nsys.setrecursionlimit(10**7)\nthreading.stack_size(2**26)\nt = threading.Thread(target=lambda: print(input()))\nt.start()\nt.join()', {}),
    ('5\n', '5', 'import atexit\natexit.register(lambda: print(input()))', {}),
    ('5\n', '5', 'import asyncio\nasync def main(): print(input())\nasyncio.run(main())', {}),
    ('5\n', '5', 'while True:\n    try: print(input())\n    except EOFError: break', {}),
    ('5\n', '5', "import sys\nfor line in iter(sys.stdin.readline, ''): print(line, end='')", {}),
    ('5\n', '5', 'from sys import *\nprint(stdin.read().strip(), file=stdout)', {}),
    ('5\n', '5', "import sys\nsys.stdout.reconfigure(line_buffering=True, encoding='utf-8')\nsys.stdin.reconfigure(encoding='utf-8')\nprint(input())", {}),
    ('5\n', '5', "import sys, io\nsys.stdin = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8')\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint(input())", {}),
    ('5\n', '5', "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')\nprint(input())", {}),
    ('5\n', '5', "import sys\nwith open(1, 'w', closefd=False) as out: out.write(input())", {}),
    ('5\n', '5', 'import sys\nsys.stdout.write(input())\nsys.stdout.close()', {}),
    ('5\n', '5', 'import sys, os\nprint(input(), flush=True)\nos.close(1)', {}),
    ('5\n', '5', 'import sys\nprint(sys.stdin.fileno() + 5 if sys.stdin.isatty() is False else 0)', {}),
    ('5\n', '5', 'def gen():\n    while True: yield input()\nprint(next(gen()))', {}),
    ('5\n', '5', 'import sys\nlines = sys.stdin.readlines()\nsys.stdin.close()\nprint(lines[0])', {}),
    ('5\n', '5', 'import sys\nprint(input())\nsys.exit(None)', {}),
    ('5\n', '5', 'import sys\nprint(input())\nsys.exit(False)', {}),
    ('5\n', '5', 'import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\nprint(input())', {}),
    ('5\n', '5', "if __name__ == '__main__':\n    import sys, __main__\n    print(input() if __main__.__name__ == '__main__' else 0)", {}),
    ('5\n', '5', 'import pickle\nclass A: pass\nassert type(pickle.loads(pickle.dumps(A()))) is A\nprint(input())', {}),
]  # fmt: skip


def test_there_are_more_than_a_hundred():
    assert len(DEFINITIONS) + len(ANSWERS) + len(PROGRAMS) >= 170


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
