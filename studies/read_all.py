"""Read every study and the benchmark of `diagnose`; then check that no page quotes an interval that none of them has.

python studies/read_all.py    what a study commits stays as it is, or changes with its tables: see `git status`
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from evidence import write_evidence
from tables import SAMPLE, differs, read_rows, unfounded

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def stated(file: Path) -> str:
    """The differences in a table of contrasts, as text."""
    return "\n".join(differs(row, 6) for row in read_rows(file) if {"difference", "low", "high"} <= row.keys())


def main() -> None:
    """Read the studies one by one; exit with the pages that quote what nothing holds."""
    for study in sorted(HERE.glob("*/study.py")):
        subprocess.run([sys.executable, str(study), "read"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "diagnose" / "run.py"), "read"], cwd=ROOT, check=True)
    write_evidence()
    pages = [*HERE.glob("*/README.md"), *(ROOT / "benchmarks").glob("*/README.md")]
    evidence = "\n".join([*(page.read_text() for page in pages), *map(stated, HERE.glob("*/*.csv"))])
    faults = [
        f"{page.relative_to(ROOT)}: {', '.join(found)}"
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        if (found := unfounded(re.sub(SAMPLE, "", page.read_text()), evidence))
    ]
    if faults:
        sys.exit("intervals that no README of a study or benchmark holds:\n" + "\n".join(faults))


if __name__ == "__main__":
    main()
