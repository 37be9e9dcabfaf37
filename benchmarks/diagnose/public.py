"""Labelled public logs: what is found in each. The logs stay where they are; results, labels, hashes, sources are kept.

python benchmarks/diagnose/public.py FOLDER      # FOLDER/labels.csv names the logs; writes public.csv
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

from entrostat.diagnosis import diagnose, read_log

OUT = Path(__file__).parent / "public.csv"
LABELS = ("file", "source", "licence", "label", "second_label", "kind", "also", "onset")


def main() -> None:
    folder, rows = Path(sys.argv[1]), []
    for label in csv.DictReader((folder / "labels.csv").open(newline="", encoding="utf-8")):
        path = folder / label["file"]
        found = diagnose(read_log(path))
        findings = " ".join(
            f"{each.kind}{'!' * (each.severity == 'critical')}@{each.first_step}" for each in found.at_least("warning")
        )
        once = sorted({each.kind for each in found.watchdog.findings if each.severity != "note"})
        rows.append(
            {name: label[name] for name in LABELS}
            | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": len(found.log.rows)}
            | {"findings": findings, "at_some_time": " ".join(once)}
        )
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
