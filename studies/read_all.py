"""Read every study and benchmark; then check that data make every table of theirs, and hold every interval quoted.

python studies/read_all.py    what a study commits stays as it is, or changes with its tables: see `git status`
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from evidence import write_evidence  # noqa: E402
from pages import mutation_rows, unmade, write_pages  # noqa: E402
from tables import SAMPLE, differs, read_rows, unfounded  # noqa: E402


def stated(file: Path) -> str:
    """The differences in a table of contrasts, as text."""
    return "\n".join(differs(row, 6) for row in read_rows(file) if {"difference", "low", "high"} <= row.keys())


def main() -> None:
    """Read the studies and benchmarks one by one; exit with the pages that show figures which nothing holds."""
    for study in sorted(HERE.glob("*/study.py")):
        subprocess.run([sys.executable, str(study), "read"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, str(BENCHMARKS / "diagnose" / "run.py"), "read"], cwd=ROOT, check=True)
    write_pages()
    write_evidence()
    made = mutation_rows()
    pages = [*HERE.glob("*/README.md"), *BENCHMARKS.glob("*/README.md")]
    loose = {page.relative_to(ROOT): rows for page in sorted(pages) if (rows := unmade(page, made))}
    if loose:
        sys.exit(f"rows of tables that no data make: {loose}; make them by `fill`, or mark settings by <!-- given -->")
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
