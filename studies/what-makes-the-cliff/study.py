"""What makes the demo's REINFORCE run fall: the same run with one suspect removed at a time."""

import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main
from matplotlib.figure import Figure
from tables import add_rows, cell, contrast_table, contrasts, draw, fill, read_rows, table, write_rows

from entrostat.report.style import BLUE, MUTED, ORANGE
from entrostat.runs import Run, Trajectory

HERE = Path(__file__).parent
BASE = Path(str(resources.files("entrostat.assets") / "demo" / "reinforce.yaml"))
FALLEN = 0.2
LIMITS = {"peak": (0.0, 1.0), "end": (0.0, 1.0), "gap": (-1.0, 1.0)}

CHANGES = {
    "as in the demo": [],
    "one pass per batch": ["update.epochs=1", "campaign.checkpoint_every=20"],
    "clip at .2": ["update.objective=clip"],
    "rewards 0 and 1": ["update.failure_reward=0"],
    "minus the batch mean": ["update.baseline=batch-mean"],
    "GRPO unclipped": ["update.advantage=grpo", "update.objective=reinforce"],
    "GRPO, clip at .2": ["update.advantage=grpo", "update.objective=clip"],
    "GRPO, ID": ["update.advantage=grpo", "update.objective=clip", "control.strategy.name=id"],
    "rate held at 5e-4": ["update.learning_rate=5e-4", "update.warmup_steps=33"],
    "GRPO, 5e-4": [
        "update.advantage=grpo",
        "update.objective=clip",
        "update.learning_rate=5e-4",
        "update.warmup_steps=33",
    ],
    "GRPO, ID, 5e-4": [
        "update.advantage=grpo",
        "update.objective=clip",
        "control.strategy.name=id",
        "update.learning_rate=5e-4",
        "update.warmup_steps=33",
    ],
}
EVERY_STEP = "as in the demo"

STUDY = Study(
    "what-makes-the-cliff",
    {
        name: Condition(BASE, changes if name == EVERY_STEP else [*changes, "evaluation.every=4"])
        for name, changes in CHANGES.items()
    },
)
PLANNED = [(name, EVERY_STEP, "gap") for name in CHANGES if name != EVERY_STEP] + [
    ("GRPO, ID, 5e-4", "GRPO, 5e-4", "gap"),
    ("GRPO, ID", "GRPO, clip at .2", "gap"),
]


def row_of(condition: str, run: Run) -> dict[str, Any]:
    """A run as a row: rise and fall on report, the peak chosen on select; entropy; the extremes of the ratios."""
    report, select = (Trajectory.from_evals(run.evals(split)) for split in ("report", "select"))
    steps = run.steps()
    return {
        "condition": condition,
        "seed": run.seed,
        "start": report.pass_at_1[0],
        "peak_step": select.peak_step,
        "peak": report.at(select.peak_step),
        "end": report.end,
        "gap": report.at(select.peak_step) - report.end,
        "entropy_start": steps[0]["entropy"],
        "entropy_end": steps[-1]["entropy"],
        "steps": steps[-1]["step"],
        "ratio_outside_max": max(line["ratio_outside"] for line in steps),
        "log_ratio_min_punished": min(line["log_ratio_min_punished"] or 0.0 for line in steps),
    }


def collect() -> None:
    """Add finished runs to results.csv."""
    rows = [row_of(condition, run) for condition in STUDY.conditions for run in STUDY.finished(condition)]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))


def read() -> None:
    """contrasts.csv, the README's tables and figure.png, from results.csv."""
    rows = read_rows(HERE / "results.csv")
    of = {name: [row for row in rows if row["condition"] == name] for name in STUDY.conditions}
    found = contrasts(rows, PLANNED)
    write_rows(HERE / "contrasts.csv", found)
    lines = {
        name: (*(cell([row[f] for row in own], 2, *LIMITS[f]) for f in LIMITS), fallen(own)) for name, own in of.items()
    }
    head = ("condition", "n", "peak", "end", "gap", "collapsed (gap > .2)")
    ends = table(head, [(name, len(of[name]), *line) for name, line in lines.items()])
    fill(HERE / "README.md", {"ends": ends, "contrasts": contrast_table(found)})
    kept = ("condition", "seed", "start", "peak", "end")
    draw(HERE / "figure.png", [{name: row[name] for name in kept} for row in rows], drawn)


def fallen(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the runs fell."""
    return f"{sum(row['gap'] > FALLEN for row in rows)} of {len(rows)}"


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Start, peak and end of every run, a panel per condition, a line per seed; a run that fell in orange."""
    columns = 6
    lines = -(-len(STUDY.conditions) // columns)
    figure = Figure(figsize=(11, 2.1 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axis, condition in zip(axes, STUDY.conditions, strict=False):
        for row in (row for row in rows if row["condition"] == condition):
            colour = ORANGE if row["peak"] - row["end"] > FALLEN else BLUE
            heights = [row[place] for place in ("start", "peak", "end")]
            axis.plot(range(3), heights, color=colour, marker="o", markersize=3, linewidth=1.1, alpha=0.8)
        axis.set_title(condition, fontsize=9)
        axis.set_xticks(range(3), ("start", "peak", "end"))
        axis.set_ylim(0, 0.85)
    for axis in axes[len(STUDY.conditions) :]:
        axis.set_visible(False)
    figure.supylabel("pass@1, report split", color=MUTED, fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect)
