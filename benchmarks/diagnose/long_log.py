"""CPU seconds that `entrostat diagnose` takes over a long log: reading, detecting, and the whole command.

python benchmarks/diagnose/long_log.py --rows 10000      # writes long_log.csv
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "studies"))

import numpy as np
from synthetic import Sound
from tables import write_rows

from entrostat.diagnosis import QUANTITIES, diagnose, read_log

OUT = Path(__file__).parent / "long_log.csv"
UNKNOWN = 60  # columns that no detector reads: verl logs about that many
ROUNDS = 1  # of the whole command and of `python -c pass`, in turns; of several the least is taken

Rows = list[dict[str, Any]]


def long_rows(count: int, failing: bool, known: bool = False) -> Rows:
    """Rows of a long run. known: instead of unread columns, one for every quantity that has a plain name."""
    run, rng = Sound(np.random.default_rng(7), count), np.random.default_rng(8)
    if failing:
        for kind in ("entropy collapse", "truncation"):
            run.fail(kind, 1.0, rng)
    extra: dict[str, float] = {f"timing_s/part_{i}": 0.1 * i for i in range(UNKNOWN)}
    if known:
        names = (metric.names[0] for metric in QUANTITIES.values())
        extra = {name: 0.1 + 0.001 * i for i, name in enumerate(names) if not name.startswith("/")}
    return [
        {**extra, "step": step, **{QUANTITIES[name].names[0]: value for name, value in values.items()}}
        for step, values in run.rows()
    ]


def _lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _trl(rows: Rows) -> str:
    bar = f"/{len(rows)} [00:10<00:20, 1.0s/it]"
    return "".join(
        f"{ {name: value for name, value in row.items() if name != 'step'} }\n 0%| | {row['step']}{bar}\n"
        for row in rows
    )


def _verl(rows: Rows) -> str:
    return "".join(
        f"step:{row['step']} - " + " - ".join(f"{name}:{value}" for name, value in row.items() if name != "step") + "\n"
        for row in rows
    )


def _state(rows: Rows) -> str:
    return json.dumps({"log_history": rows, "max_steps": len(rows), "global_step": len(rows)}, indent=2)


SHAPES: dict[str, tuple[bool, bool, Callable[[Rows], str]]] = {  # name -> failing, all columns known, how it is written
    "JSON lines, sound": (False, False, _lines),
    "JSON lines, failing": (True, False, _lines),
    "JSON lines, every column known": (False, True, _lines),
    "CSV": (False, False, _csv),
    "trainer_state.json": (False, False, _state),
    "verl's console": (False, False, _verl),
    "TRL's console": (False, False, _trl),
}


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
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for shape, (failing, known, written) in SHAPES.items():
            path = Path(folder) / "log"
            path.write_text(written(long_rows(count, failing, known)))
            began = time.process_time()
            log = read_log(path)
            middle = time.process_time()
            diagnose(log)
            ended = time.process_time()
            command, nothing = [], []
            for _ in range(ROUNDS):
                command.append(seconds_of([sys.executable, "-m", "entrostat", "diagnose", str(path)]))
                nothing.append(seconds_of([sys.executable, "-c", "import numpy"]))
            found.append(
                {
                    "log": shape,
                    "rows": len(log.rows),
                    "read_seconds": middle - began,
                    "detect_seconds": ended - middle,
                    "command_seconds": min(command),
                    "times_import_numpy": min(command) / min(nothing),
                }
            )
            print(found[-1], flush=True)
    write_rows(OUT, found, digits=3)


if __name__ == "__main__":
    main()
