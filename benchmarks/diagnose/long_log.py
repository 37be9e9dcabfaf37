"""CPU seconds that `entrostat diagnose` takes over a long log: reading, detecting, and the whole command.

python benchmarks/diagnose/long_log.py --rows 10000
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

import synthetic

from entrostat.diagnosis import diagnose, read_log

UNKNOWN = 60  # columns that no detector reads: verl logs about that many


def long_rows(count: int, failing: bool, host: str) -> list[dict[str, float]]:
    maker = synthetic.Maker(7 * 1009 + failing, count, 1.0)
    maker.every, maker.host, maker.eval_rows = 1, host, 50
    if failing:
        synthetic.entropy_collapse(maker)
        synthetic.truncation(maker)
    extra = {f"timing_s/part_{i}": 0.1 * i for i in range(UNKNOWN)}
    return [{**row, **extra} for row in maker.log()]


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
    with tempfile.TemporaryDirectory() as folder:
        for failing in (False, True):
            lines = "".join(json.dumps(row) + "\n" for row in long_rows(count, failing, "verl"))
            state = json.dumps({"log_history": long_rows(count, failing, "trl"), "max_steps": count}, indent=2)
            for name, text in (("log.jsonl", lines), ("trainer_state.json", state)):
                path = Path(folder) / name
                path.write_text(text)
                began = time.process_time()
                log = read_log(path)
                middle = time.process_time()
                found = {each.kind: each.first_step for each in diagnose(log).findings}
                ended = time.process_time()
                whole = seconds_of([sys.executable, "-m", "entrostat", "diagnose", str(path)])
                print(
                    f"{name}, {count} rows, {'failing' if failing else 'healthy'}: read {middle - began:.2f} s, "
                    f"detect {ended - middle:.2f} s, the whole command {whole:.2f} s; found {found}"
                )


if __name__ == "__main__":
    main()
