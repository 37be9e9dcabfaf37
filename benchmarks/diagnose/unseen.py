"""Public logs that no threshold was set with: labelled by their curves and owners before the tool saw them.

    python benchmarks/diagnose/unseen.py FOLDER      # FOLDER holds the logs, by the names in unseen.csv

`unseen.csv` keeps source, path, SHA-256, label and evidence of each, what was found before anything was mended
(`before`), and what is found now (`now`). The logs are not kept here: most of their repositories show no licence.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "studies"))

from tables import read_rows, write_rows

from entrostat.diagnosis import diagnose, read_log

HERE = Path(__file__).parent


def found(log: Path) -> str:
    """The findings that stand at the end of a log, notes aside, with the step of each; `-` for none."""
    standing = [finding for finding in diagnose(read_log(log)).findings if finding.severity != "note"]
    return " ".join(f"{each.kind}{'!' * (each.severity == 'critical')}@{each.first_step}" for each in standing) or "-"


def main() -> None:
    """Diagnose every log of the folder that the table names, and write what is found now into the table."""
    folder, table = Path(sys.argv[1]), HERE / "unseen.csv"
    rows = read_rows(table)
    for row in rows:
        log = folder / str(row["file"])
        if hashlib.sha256(log.read_bytes()).hexdigest() != row["sha256"]:
            raise SystemExit(f"{log}: is not the log that the table names; fetch {row['path']} at {row['commit']}")
        row["now"] = found(log)
    write_rows(table, rows)


if __name__ == "__main__":
    main()
