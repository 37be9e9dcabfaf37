"""Which branch of the polarity carries the learning: both, expanding tokens only, contracting tokens only."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, cell, draw_courses, end_row, main, measure_end, write_csv

from entrostat.runs import paired_bootstrap

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")

STUDY = Study(
    "polarity-branches",
    {
        "both": Condition(RECIPES / "grpo.yaml"),
        "expanding only": Condition(RECIPES / "expanding-only.yaml"),
        "contracting only": Condition(RECIPES / "contracting-only.yaml"),
    },
    common=("tasks.select=8", "grading.workers=1"),
)


def read() -> None:
    """Write results.csv and figure.png; print a row a condition."""
    rows = [end_row(condition, run) for condition in STUDY.conditions for run in STUDY.finished(condition)]
    write_csv(HERE / "results.csv", rows)
    for condition in STUDY.conditions:
        own = [row for row in rows if row["condition"] == condition]
        if own:
            cells = [
                f"{field} {cell([row[field] for row in own])}" for field in ("entropy", "pass_1", "pass_8", "pass_16")
            ]
            print(f"{condition:<18} n={len(own)}", *cells, " seeds", [row["pass_1"] for row in own])
    for field in ("pass_1", "pass_16", "entropy"):
        both, one = ([row[field] for row in rows if row["condition"] == c] for c in ("both", "contracting only"))
        if len(both) == len(one):
            found = paired_bootstrap(one, both)
            print(f"contracting only - both, {field}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
    draw_courses(STUDY, HERE / "figure.png")


if __name__ == "__main__":
    main(STUDY, read, measure_end)
