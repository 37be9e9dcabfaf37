"""Reduce logs of real runs to the quantities that detectors read, for logs/.

python benchmarks/diagnose/collect.py NAME=LOG [NAME=LOG ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from entrostat.diagnosis import QUANTITIES, read_log

HERE = Path(__file__).parent


def main() -> None:
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        log = read_log(Path(path))
        target = HERE / "logs" / f"{name}.jsonl"
        target.parent.mkdir(exist_ok=True)
        with target.open("w") as file:
            for step, values in log.rows:
                row = {QUANTITIES[quantity].names[0]: float(f"{value:.5g}") for quantity, value in values.items()}
                file.write(json.dumps({"step": step, **row}) + "\n")
        print(f"{target.name},{log.end or log.rows[-1][0]}")


if __name__ == "__main__":
    main()
