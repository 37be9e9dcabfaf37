"""One grader and one task for the tests that need no settings of their own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import entrostat
from entrostat.grading import CodeGrader, Verdict
from entrostat.tasks import Call, ScriptTask, Task

DOUBLE_EVENS = Task(
    id="double-evens",
    prompt="Write solve(numbers): the even numbers, doubled, in their order.",
    entry_point="solve",
    tests=(
        Call(args=([3, 2, 4],), expected=[4, 8]),
        Call(args=([],), expected=[]),
        Call(args=([7, 9],), expected=[]),
        Call(args=([-2, 0, 5, 10],), expected=[-4, 0, 20]),
        Call(args=([8, 8, 1],), expected=[16, 16]),
    ),
)


@pytest.fixture
def task() -> Task:
    return DOUBLE_EVENS


@pytest.fixture(scope="session")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(workers=2, timeout=1.0, memory=256 << 20) as grader:
        yield grader


@pytest.fixture(scope="session")
def package_alone() -> str:
    """Source that makes `import entrostat.grading` work in a new process without loading torch first."""
    return (
        "import sys, types\n"
        "package = sys.modules['entrostat'] = types.ModuleType('entrostat')\n"
        f"package.__path__ = {list(entrostat.__path__)!r}\n"
    )


@pytest.fixture
def judge(grader: CodeGrader, task: Task) -> Callable[[str], Verdict]:
    """The verdict on one completion of the task."""
    return lambda completion: grader.grade([(task, completion)])[0]


@pytest.fixture
def inside(grader: CodeGrader) -> Callable[[str], str]:
    """What the body of a function in the sandbox returns, as text: the failed grading's detail carries it out."""

    def run(body: str) -> str:
        probe = Task(id="probe", prompt="", entry_point="solve", tests=(Call(args=(), expected=None),))
        code = "import ctypes, os, resource, socket, subprocess, sys\ndef solve():\n" + textwrap.indent(body, "    ")
        return grader.grade([(probe, code)])[0].detail.removeprefix("test 1 of 1: answered ")

    return run


_SECTIONS = re.split(r"^=== (.+)\n", (Path(__file__).parent / "attacks.txt").read_text(), flags=re.MULTILINE)[1:]
ATTACKS = dict(zip(_SECTIONS[::2], _SECTIONS[1::2], strict=True))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise `attack` with the name of every section of attacks.txt."""
    if "attack" in metafunc.fixturenames:
        metafunc.parametrize("attack", ATTACKS)


@pytest.fixture(scope="session")
def attack_verdicts() -> dict[str, dict[str, Verdict]]:
    """The verdicts on every attack by the kind of the task that it attacks."""
    calls = "".join(f"assert candidate({list(*call.args)}) == {call.expected}\n" for call in DOUBLE_EVENS.tests)
    script = ScriptTask(id="script", prompt="", entry_point="solve", script=calls)
    with CodeGrader(workers=2, timeout=0.25, memory=256 << 20) as grader:
        kinds = {"calls": DOUBLE_EVENS, "script": script}
        return {
            kind: dict(zip(ATTACKS, grader.grade([(task, attack) for attack in ATTACKS.values()]), strict=True))
            for kind, task in kinds.items()
        }
