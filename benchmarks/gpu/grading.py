"""Gradings per second of the code grader, by the number of workers, up to one per core.

    python benchmarks/gpu/grading.py [--rehearse]

For the rivals beside it on the same machine see benchmarks/grading/compare.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

from measuring import attempt

from entrostat import CodeGrader, Task
from entrostat.tasks import Call

RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n# {}\n"
TASK = Task("double-evens", "", "solve", tuple(Call((x,), y) for x, y in [([3, 2, 4], [4, 8]), ([], []), ([7], [])]))


def rate(workers: int, count: int, rounds: int) -> dict[str, Any]:
    """Median, least and greatest rate of the rounds; how the graded code was isolated."""
    rates = []
    with CodeGrader(workers=workers, isolation="best-effort") as grader:
        grader.grade([(TASK, RIGHT.format(-1))])
        for number in range(rounds):
            codes = [(TASK, RIGHT.format(number * count + i)) for i in range(count)]
            begun = time.monotonic()
            passed = sum(verdict.passed for verdict in grader.grade(codes))
            rates.append(count / (time.monotonic() - begun))
            if passed != count:
                return {"ok": False, "error": f"{passed} of {count} right answers passed"}
    return {"ok": True, "per_second": statistics.median(rates), "least": min(rates), "greatest": max(rates)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    rehearse = parser.parse_args().rehearse
    cores = len(os.sched_getaffinity(0))
    counts = [1] if rehearse else [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]
    for workers in counts:
        size = 5 if rehearse else 100 * workers
        attempt({"case": "gradings", "workers": workers}, lambda w=workers, n=size: rate(w, n, 1 if rehearse else 3))


if __name__ == "__main__":
    main()
