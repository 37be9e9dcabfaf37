"""The long run on hard tasks: does anything that holds the entropy end better?"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from tables import cell, contrast_table, contrasts, cost_table, draw, fill, read_rows, table, write_rows

from entrostat.report.style import BLUE, INK, MUTED
from entrostat.runs import Run

HERE = Path(__file__).parent
RECIPE = Path("recipes/tabular/long-run.yaml")
HOLD = 0.4  # nats per token, the target of every method that has one
EVERY = 20  # steps between two points of a course
STANDARD = "GRPO"
METHODS = {
    STANDARD: "control.strategy=constant",
    "ID": "control.strategy=id",
    "adaptive bonus": f"control.bonus={{name: adaptive, target: {HOLD}}}",
    "target-weights": f"control.reweighting={{name: target-weights, curve: {{points: [[0, {HOLD}]]}}}}",
    "REPO-R": f"control.reweighting={{name: repo-r, target: {HOLD}}}",
    "MAI": f"control.strategy={{name: mai, target: {HOLD}}}",
    "polarity, rewarded": "control.reweighting={name: polarity-aware, rewarded_only: true}",
}
STUDY = MeasuredStudy("long-run", {name: Condition(RECIPE, [setting]) for name, setting in METHODS.items()})
FIELDS = ("entropy_end", "train_end", "pass_1", "pass_32")
PLANNED = [(name, STANDARD, field) for field in FIELDS for name in METHODS if name != STANDARD]


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps, report = run.steps(), run.evals("report")
    points = [step["exact"] for step in steps[EVERY - 1 :: EVERY]]
    row = {
        "seed": run.seed,
        "start_1": report[0]["pass_at"]["1"],
        "start_32": report[0]["pass_at"]["32"],
        "entropy_half": steps[len(steps) // 2 - 1]["exact"]["token_entropy"],
        "entropy_end": steps[-1]["exact"]["token_entropy"],
        "train_end": steps[-1]["exact"]["success"],
        **{f"pass_{k}": report[-1]["pass_at"][str(k)] for k in (1, 8, 32)},
        "distinct": report[-1]["distinct"],
        "entropy": [round(point["token_entropy"], 4) for point in points],
        "success": [round(point["success"], 4) for point in points],
        "seconds": json.loads((folder / "seconds.json").read_text()),
    }
    (folder / "row.json").write_text(json.dumps(row))


def collect() -> None:
    """results.csv and courses.csv.gz from the measured runs."""
    rows, courses = [], []
    for condition, found in STUDY.measured().items():
        for row in found:
            entropy, success = row.pop("entropy"), row.pop("success")
            rows.append({"condition": condition, **row})
            for place, (nats, share) in enumerate(zip(entropy, success, strict=True), start=1):
                point = {"step": EVERY * place, "entropy": nats, "success": share}
                courses.append({"condition": condition, "seed": row["seed"], **point})
    write_rows(HERE / "results.csv", rows)
    write_rows(HERE / "courses.csv.gz", courses)


def read() -> None:
    """contrasts.csv, the README's tables and figure.png, from results.csv and courses.csv.gz."""
    rows = read_rows(HERE / "results.csv")
    found = contrasts(rows, PLANNED)
    write_rows(HERE / "contrasts.csv", found)
    tables = {"ends": ends(rows), "contrasts": contrast_table(found), "cost": cost_table(rows)}
    fill(HERE / "README.md", tables)
    draw(HERE / "figure.png", read_rows(HERE / "courses.csv.gz"), drawn)


def ends(rows: Sequence[Mapping[str, Any]]) -> str:
    """Start and end by method."""
    fields = ("entropy_half", "entropy_end", "train_end", "pass_1", "pass_8", "pass_32", "distinct")
    titles = ("entropy, half-way", "entropy, end", "success, training", "pass@1", "pass@8", "pass@32", "distinct")

    def of(name: str, field: str) -> str:
        return cell([row[field] for row in rows if row["condition"] == name], 3, 0)

    count = {name: sum(row["condition"] == name for row in rows) for name in METHODS}
    start = ("the start", count[STANDARD], "-", "-", "-", of(STANDARD, "start_1"), "-", of(STANDARD, "start_32"), "-")
    lines = [(name, count[name], *(of(name, field) for field in fields)) for name in METHODS if count[name]]
    return table(("method", "n", *titles), [start, *lines])


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A column per method beside GRPO: exact entropy above, success on the training tasks below; seeds and means."""
    others = [name for name in METHODS if name != STANDARD and any(row["condition"] == name for row in rows)]
    figure = Figure(figsize=(1.9 * len(others) + 1, 4.6), layout="constrained")
    grid = figure.subplots(2, len(others), sharex=True, sharey="row", squeeze=False)
    for column, method in enumerate(others):
        for axis, quantity in zip(grid[:, column], ("entropy", "success"), strict=True):
            for name, colour in ((STANDARD, INK), (method, BLUE)):
                own = [row for row in rows if row["condition"] == name]
                steps = sorted({row["step"] for row in own})
                for seed in sorted({row["seed"] for row in own}):
                    course = [row[quantity] for row in own if row["seed"] == seed]
                    axis.plot(steps, course, color=colour, linewidth=0.5, alpha=0.4)
                mean = [fmean(row[quantity] for row in own if row["step"] == step) for step in steps]
                axis.plot(steps, mean, color=colour, linewidth=2)
        grid[0, column].axhline(HOLD, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        grid[0, column].set_title(method)
    for colour, label in ((INK, STANDARD), (BLUE, "method of the panel")):
        grid[0, 0].plot([], [], color=colour, linewidth=2, label=label)
    grid[0, 0].plot([], [], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), label=f"target, {HOLD:g} nats")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    grid[0, 0].set_ylabel("entropy, nats per token")
    grid[1, 0].set_ylabel("success, training tasks")
    figure.supxlabel("optimizer step", fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
