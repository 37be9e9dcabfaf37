"""What isolation costs at least: processor time of a fork that does nothing, with one layer after another.

    python benchmarks/grading/limit.py --count 400 --out benchmarks/grading/limit.csv

Each row adds its step to those above it. "bare" is an interpreter that has loaded nothing but this script's modules;
"warm" has loaded what the fork server has. The last row is a whole grading with five calls, by CodeGrader, without the
trainer's own share. Run as root on Linux.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "src" / "entrostat"
STEPS = ("fork", "process namespace", "user and mount namespaces", "empty /tmp", "filter")
# The sandbox's own modules without the package, which would load torch.
SERVER = """
import os, sys, types
for name, path in (("entrostat", sys.argv[1]), ("entrostat.grading", sys.argv[1] + "/grading")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from entrostat.grading import kernel
from entrostat.grading.seccomp import grading_filter
if sys.argv[2] == "warm":
    import entrostat.grading.fork_server as server
    for name in server._WARM.split():
        __import__(name)
import gc
program, steps, count = grading_filter(), int(sys.argv[3]), int(sys.argv[4])
kernel.unshare(kernel.CLONE_NEWNS)
kernel.make_mounts_private()
own = os.open("/proc/self/ns/pid", os.O_RDONLY)
gc.collect(); gc.freeze()

def child():
    if steps > 2:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    if steps > 3:
        kernel.mount_tmpfs("/tmp", 1 << 24, 256)
    if steps > 4:
        kernel.forbid_new_privileges()
        kernel.filter_system_calls(program)
    os._exit(0)

def cycle():
    if steps > 1:
        kernel.unshare(kernel.CLONE_NEWPID)
    pid = kernel.fork()
    if pid == 0:
        child()
    if steps > 1:
        kernel.join_namespace(own, kernel.CLONE_NEWPID)
    _, status = os.waitpid(pid, 0)
    assert status == 0

for _ in range(20): cycle()
before = os.times()
for _ in range(count): cycle()
after = os.times()
print(1000 * (sum(after[:4]) - sum(before[:4])) / count)
"""


def milliseconds(loaded: str, steps: int, count: int) -> float:
    """Processor time of one fork with the first `steps` steps."""
    command = [sys.executable, "-s", "-S", "-c", SERVER, str(PACKAGE), loaded, str(steps), str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def whole_grading(count: int) -> float:
    """Processor time of one grading by CodeGrader, without the trainer's."""
    from compare import RIGHT, TASK, processor_seconds

    from entrostat.grading import CodeGrader

    with CodeGrader(workers=2) as grader:
        grader.grade([(TASK, RIGHT)] * 20)
        used, own = processor_seconds(), sum(os.times()[:2])
        grader.grade([(TASK, RIGHT.format(i)) for i in range(count)])
        used, own = processor_seconds() - used, sum(os.times()[:2]) - own
    return 1000 * (used - own) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "limit.csv")
    arguments = parser.parse_args()
    measured: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for loaded in ("bare", "warm"):
            for steps, name in enumerate(STEPS, 1):
                measured.setdefault((loaded, name), []).append(milliseconds(loaded, steps, arguments.count))
        measured.setdefault(("warm", "whole grading"), []).append(whole_grading(arguments.count))
    rows = [
        {"interpreter": loaded, "up to": name, "processor ms": round(statistics.median(values), 2)}
        | {"least": round(min(values), 2), "most": round(max(values), 2)}
        for (loaded, name), values in measured.items()
    ]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
