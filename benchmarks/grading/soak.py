"""A long run of the grader with attacks mixed in: what leaks, what is lost, what is invented.

    python benchmarks/grading/soak.py --gradings 100000 --out benchmarks/grading/soak.json

A run that was cut short resumes from what its file counts, in another process; each process is a piece of the run.

Nineteen gradings in twenty are honest, right and wrong by turns; every twentieth is one of the attacks of
tests/grading. With --kill, a process of the grader is killed at random every second. Counted before and after:
processes, descriptors, memory and mounts of this process, files in the temporary folder; and every verdict that is not
what it should be. A fork server that was killed last is replaced by the gradings that come after the last kill.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from entrostat.grading import CodeGrader, Outcome
from entrostat.tasks import Call, Task

TASK = Task(
    id="double-evens",
    prompt="",
    entry_point="solve",
    tests=(
        Call(([3, 2, 4],), [4, 8]),
        Call(([],), []),
        Call(([7, 9],), []),
        Call(([-2, 0, 5, 10],), [-4, 0, 20]),
        Call(([8, 8, 1],), [16, 16]),
    ),
)
RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n# {}\n"
WRONG = "def solve(numbers):\n    return [2 * n for n in numbers]\n# {}\n"
SANDBOX = ("code", "fork_server", "interpreter", "kernel", "sandbox", "seccomp", "slot", "wire", "worker")
ATTACKS = Path(__file__).parents[2] / "tests" / "grading" / "attacks.txt"


def descendants(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            children += [int(child) for child in listing.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def machine_state() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    return {
        "processes below": len(descendants(os.getpid())),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "resident KiB": int(re.search(r"VmRSS:\s+(\d+)", status)[1]),  # type: ignore[index]
        "worker resident KiB": sum(resident(pid) for pid in descendants(os.getpid())),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
        "zombies": sum(state(pid) == "Z" for pid in descendants(os.getpid())),
    }


def resident(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def kill_one_a_second(stop: threading.Event, killed: list[int]) -> None:
    rng = random.Random(0)
    while not stop.wait(1.0):
        if workers := descendants(os.getpid()):
            pid = rng.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradings", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=2_000)
    parser.add_argument("--timeout", type=float, default=0.5)
    parser.add_argument("--kill", action="store_true", help="kill a worker at random every second")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    attacks = re.split(r"^=== .+\n", ATTACKS.read_text(), flags=re.MULTILINE)[1:]
    result = earlier(arguments.out) or {"source": source(), "gradings": 0, "counts": {}, "pieces": []}
    counts: collections.Counter[str] = collections.Counter(result["counts"])
    killed: list[int] = []
    stop = threading.Event()
    begun, first = time.monotonic(), result["gradings"]
    piece: dict[str, object] = {"first": first, "without a grader, before": machine_state()}
    result["pieces"].append(piece)
    with CodeGrader(workers=2, timeout=arguments.timeout, memory=256 << 20) as grader:
        grader.grade([(TASK, RIGHT)] * 200)
        piece["after 200 gradings"] = machine_state()
        killer = threading.Thread(target=kill_one_a_second, args=(stop, killed))
        if arguments.kill:
            killer.start()
        for start in range(first, arguments.gradings, arguments.batch):
            rng = random.Random(start)
            kinds, batch = [], []
            for number in range(start, min(start + arguments.batch, arguments.gradings)):
                kind = "attack" if number % 20 == 0 else rng.choice(["right", "wrong"])
                code = (
                    rng.choice(attacks) if kind == "attack" else {"right": RIGHT, "wrong": WRONG}[kind].format(number)
                )
                kinds.append(kind)
                batch.append((TASK, code))
            for kind, verdict in zip(kinds, grader.grade(batch), strict=True):
                counts[f"{kind}: {verdict.outcome}"] += 1
                counts["false passes"] += kind != "right" and verdict.passed
                counts["false fails"] += kind == "right" and verdict.reward == 0.0
                counts["no verdict"] += verdict.outcome is Outcome.INFRASTRUCTURE_ERROR
            seconds = time.monotonic() - begun
            result |= {"gradings": start + len(batch), "counts": dict(sorted(counts.items()))}
            piece |= {"gradings": start + len(batch) - first, "seconds": round(seconds, 1)}
            piece |= {"gradings per second": round((start + len(batch) - first) / seconds, 1)}
            piece |= {"workers killed": len(killed)}
            report(result, arguments.out)
        if arguments.kill:
            stop.set()
            killer.join()
            grader.grade([(TASK, RIGHT)] * 200)
        piece["after all gradings"] = machine_state()
    piece["after closing"] = machine_state()
    report(result, arguments.out)


def source() -> str:
    """The hash of the sandbox's source and of the attacks."""
    package = Path(__file__).parents[2] / "src" / "entrostat" / "grading"
    files = [*(package / f"{name}.py" for name in SANDBOX), ATTACKS]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def earlier(path: Path | None) -> dict[str, Any] | None:
    """What a run that was cut short has counted; it must have been of this source."""
    if path is None or not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    if result.get("source") != source():
        raise SystemExit(f"{path} is a run of another source; remove it to begin anew")
    return result


def report(result: dict[str, object], path: Path | None) -> None:
    """The state so far: a run that is cut short leaves what it counted."""
    text = json.dumps(result, indent=1)
    print(text, flush=True)
    if path:
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
