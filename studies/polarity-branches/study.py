"""Which branch of the polarity carries the learning: both, expanding tokens only, contracting tokens only."""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, end_row, main, measure_end
from tables import add_rows, cell, contrast_table, contrasts, dots, draw, fill, read_rows, table, write_rows

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")

STUDY = Study(
    "polarity-branches",
    {
        "both": Condition(RECIPES / "grpo.yaml"),
        "expanding only": Condition(RECIPES / "expanding-only.yaml"),
        "contracting only": Condition(RECIPES / "contracting-only.yaml"),
    },
    common=("tasks.seed=0", "tasks.select=8", "grading.workers=1"),
)


LIMITS = {"entropy": (0.0, math.inf)}
FIELDS = ("entropy", "pass_1", "pass_8", "pass_16")


def collect() -> None:
    """Add finished runs to results.csv."""
    rows = [end_row(condition, run) for condition in STUDY.conditions for run in STUDY.finished(condition)]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))


def read() -> None:
    """contrasts.csv, the README's tables and figure.png, from results.csv."""
    rows = read_rows(HERE / "results.csv")
    of = {c: {f: [row[f] for row in rows if row["condition"] == c] for f in FIELDS} for c in STUDY.conditions}
    both, *others = STUDY.conditions
    found = contrasts(rows, [(other, both, field) for field in FIELDS for other in others])
    write_rows(HERE / "contrasts.csv", found)
    head = ("tokens that learn", "n", "entropy at the end", "pass@1", "pass@8", "pass@16")
    ends = [
        (name, len(own["entropy"]), *(cell(own[f], 2, *LIMITS.get(f, (0.0, 1.0))) for f in FIELDS))
        for name, own in of.items()
    ]
    fill(HERE / "README.md", {"ends": table(head, ends), "contrasts": contrast_table(found)})
    titles = {"entropy": "entropy at the end, nats", "pass_1": "pass@1", "pass_16": "pass@16"}
    panels = {title: {name: own[field] for name, own in of.items()} for field, title in titles.items()}
    draw(HERE / "figure.png", panels, dots)


if __name__ == "__main__":
    main(STUDY, read, collect, measure_end)
