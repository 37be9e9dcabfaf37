"""Polarity-aware reweighting beside its rivals at equal compute: entropy, pass@1, pass@k, steps to a given pass@1."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, end_row, main, measure_end
from matplotlib.figure import Figure
from tables import add_rows, cell, contrast_table, contrasts, dots, draw, fill, read_rows, table, write_rows

from entrostat.runs import Run, Trajectory

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")
GRPO = RECIPES / "grpo.yaml"
OURS = "polarity-aware, rewarded"
LEVEL = 0.6
AGAINST = ("pass_1", "pass_16", "entropy")
CONTRASTED = ("pass_1", "pass_8", "pass_16", "entropy")
SHOWN = {
    "entropy": "entropy at the end",
    "pass_1": "pass@1",
    "pass_8": "pass@8",
    "pass_16": "pass@16",
    "distinct": "distinct solutions",
    "steps_to_level": "steps to .6",
}
LIMITS = {"entropy": (0.0, math.inf), "distinct": (0.0, math.inf), "steps_to_level": (0.0, 48.0)}
SHOWN_DIGITS = {"entropy": 3, "pass_1": 3, "pass_8": 3, "pass_16": 3, "distinct": 2, "steps_to_level": 1}


def weighted(name: str, **settings: object) -> Condition:
    """GRPO with a reweighting."""
    return Condition(GRPO, [f"control.reweighting={json.dumps({'name': name, **settings})}"])


STUDY = Study(
    "polarity-control",
    {
        "GRPO": Condition(GRPO),
        "polarity-aware, hold": Condition(RECIPES / "polarity-aware.yaml"),
        "polarity-aware, fall": weighted("polarity-aware", reference={"points": [[0, 0.28], [1, 0.05]]}),
        "polarity-aware, rewarded": weighted(
            "polarity-aware", rewarded_only=True, reference={"points": [[0, 0.28], [1, 0.12]]}
        ),
        "DAPO-style": Condition(GRPO, ["control.strategy=clip-higher"]),
        "entropy bonus": Condition(GRPO, ["control.bonus={name: constant, value: 0.01}"]),
        "80/20": weighted("80/20", divide_by_kept=False),
        "OPEFO": weighted("opefo", off_policy=True),
        "STARE": weighted("stare"),
        "STEER": weighted("steer"),
        "EntroPIC": weighted("entropic-weights", target=0.28),
    },
    common=("tasks.seed=0", "tasks.select=8", "grading.workers=1", "control.measure_change=false"),
)


def steps_to(run: Run, level: float) -> float:
    """The first evaluated step whose pass@1 on the report split reaches `level`; the run's length where none does."""
    report = Trajectory.from_evals(run.evals("report"))
    return next((s for s, p in zip(report.steps, report.pass_at_1, strict=True) if p >= level), report.steps[-1])


def row_of(condition: str, run: Run) -> dict[str, Any]:
    """A run as a row: its end, its mean entropy, the share of clipped tokens, how soon it reached LEVEL."""
    steps = run.steps()
    clipped = [step["clip_fraction_low"] + step["clip_fraction_high"] for step in steps if step["epoch"] > 0]
    return end_row(condition, run) | {
        "mean_entropy": fmean(step["entropy"] for step in steps),
        "clipped": fmean(clipped),
        "steps_to_level": float(steps_to(run, LEVEL)),
    }


def collect() -> None:
    """Add finished runs to results.csv."""
    rows = [row_of(condition, run) for condition in STUDY.conditions for run in STUDY.finished(condition)]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))


def read() -> None:
    """contrasts.csv, the README's tables and figure.png, from results.csv."""
    rows = read_rows(HERE / "results.csv")
    of = {c: [row for row in rows if row["condition"] == c] for c in STUDY.conditions}
    planned = [(OURS, other, field) for field in CONTRASTED for other in STUDY.conditions if other != OURS]
    found = contrasts(rows, planned)
    write_rows(HERE / "contrasts.csv", found)
    others = [c for c in STUDY.conditions if c != "GRPO"]
    against = contrasts(rows, [(other, "GRPO", field) for field in AGAINST for other in others])
    write_rows(HERE / "against-grpo.csv", against)
    head = ("method", "n", *SHOWN.values())
    ends = [
        (c, len(own), *(cell([row[f] for row in own], SHOWN_DIGITS[f], *LIMITS.get(f, (0.0, 1.0))) for f in SHOWN))
        for c, own in of.items()
    ]
    fill(
        HERE / "README.md",
        {"ends": table(head, ends), "contrasts": contrast_table(found), "against GRPO": contrast_table(against)},
    )
    base = {row["seed"]: row for row in of["GRPO"]}
    panels = {
        f"{SHOWN[field]} minus GRPO's": {c: [row[field] - base[row["seed"]][field] for row in of[c]] for c in others}
        for field in ("entropy", "pass_1", "pass_16")
    }
    draw(HERE / "figure.png", panels, differences)


def differences(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Each seed's difference from GRPO, a line per method."""
    return dots(panels, zero=True)


if __name__ == "__main__":
    main(STUDY, read, collect, measure_end)
