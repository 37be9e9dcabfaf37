"""CPU seconds that `entrostat diagnose` takes over a long log: reading, detecting, and the whole command.

python benchmarks/diagnose/long_log.py --rows 10000      # writes long_log.csv
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "studies"))

import numpy as np
from synthetic import Sound
from tables import write_rows

from entrostat.diagnosis import QUANTITIES, diagnose, read_log

OUT = Path(__file__).parent / "long_log.csv"
UNKNOWN = 60  # columns that no detector reads: verl logs about that many


def long_rows(count: int, failing: bool) -> list[dict[str, Any]]:
    run, rng = Sound(np.random.default_rng(7), count), np.random.default_rng(8)
    if failing:
        for kind in ("entropy collapse", "truncation"):
            run.fail(kind, 1.0, rng)
    extra = {f"timing_s/part_{i}": 0.1 * i for i in range(UNKNOWN)}
    return [
        {"step": step, **{QUANTITIES[name].names[0]: value for name, value in values.items()}, **extra}
        for step, values in run.rows()
    ]


def seconds_of(command: list[str]) -> float:
    """CPU seconds of a command, start and imports included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    count = parser.parse_args().rows
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for failing in (False, True):
            path = Path(folder) / "log.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in long_rows(count, failing)))
            began = time.process_time()
            log = read_log(path)
            middle = time.process_time()
            diagnose(log)
            ended = time.process_time()
            rows.append(
                {
                    "run": "failing" if failing else "sound",
                    "rows": count,
                    "read_seconds": middle - began,
                    "detect_seconds": ended - middle,
                    "command_seconds": seconds_of([sys.executable, "-m", "entrostat", "diagnose", str(path)]),
                }
            )
            print(rows[-1], flush=True)
    write_rows(OUT, rows, digits=3)


if __name__ == "__main__":
    main()
