"""The long run on hard tasks: does anything that holds the entropy end better?"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from on_a_curve import drawn_courses
from tables import add_rows, contrast_table, contrasts, cost_table, draw, fill, read_rows, summary, table, write_rows

from entrostat.report.style import BLUE, INK, MUTED
from entrostat.runs import Run

HERE = Path(__file__).parent
TABLE, NETWORK = Path("recipes/tabular/long-run.yaml"), Path("recipes/flexible-entropy/long-run.yaml")
HOLD = {TABLE: 0.4, NETWORK: 0.2}  # nats per token, the target of every method that has one
EVERY = {TABLE: 20, NETWORK: 40}  # steps per point of a course
STANDARD = "GRPO"
COLUMNS = 5  # panels of the figure beside each other


def methods(target: float) -> dict[str, str]:
    """What each method changes in the recipe."""
    return {
        STANDARD: "control.strategy=constant",
        "clip-higher": "control.strategy=clip-higher",
        "ID": "control.strategy=id",
        "DID": "control.strategy=did",
        "OD": "control.strategy=od",
        "adaptive bonus": f"control.bonus={{name: adaptive, target: {target}}}",
        "target-weights": f"control.reweighting={{name: target-weights, curve: {{points: [[0, {target}]]}}}}",
        "REPO-R": f"control.reweighting={{name: repo-r, target: {target}}}",
        "MAI": f"control.strategy={{name: mai, target: {target}}}",
        "polarity, rewarded": "control.reweighting={name: polarity-aware, rewarded_only: true}",
    }


METHODS = list(methods(0.0))
IN_TABLE = {name: Condition(TABLE, [setting]) for name, setting in methods(HOLD[TABLE]).items()}
IN_NETWORK = {f"network, {name}": Condition(NETWORK, [setting]) for name, setting in methods(HOLD[NETWORK]).items()}
STUDY = MeasuredStudy("long-run", {**IN_TABLE, **IN_NETWORK})
FIELDS = ("entropy_end", "train_end", "pass_1", "pass_32")
PLANNED = [(name, STANDARD, field) for field in FIELDS for name in METHODS[1:]]


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    report = run.evals("report")
    courses = table_courses(run.steps()) if run.recipe["engine"] == "tabular" else network_courses(run.steps())
    row = {
        "seed": run.seed,
        "start_1": report[0]["pass_at"]["1"],
        "start_32": report[0]["pass_at"]["32"],
        "entropy_half": courses["entropy"][len(courses["entropy"]) // 2 - 1],
        "entropy_end": courses["entropy"][-1],
        "train_end": courses["success"][-1],
        **{f"pass_{k}": report[-1]["pass_at"][str(k)] for k in (1, 8, 32)},
        "distinct": report[-1]["distinct"],
        **({} if run.recipe["engine"] == "tabular" else {"hard": report[-1]["hard"]}),
        **{name: [round(value, 4) for value in values] for name, values in courses.items()},
        "seconds": json.loads((folder / "seconds.json").read_text()),
    }
    (folder / "row.json").write_text(json.dumps(row))


def table_courses(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Exact entropy per token and success over the training tasks, every EVERY steps."""
    points = [step["exact"] for step in steps[EVERY[TABLE] - 1 :: EVERY[TABLE]]]
    return {"entropy": [point["token_entropy"] for point in points], "success": [point["success"] for point in points]}


def network_courses(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Entropy of the batches' tokens and the share of completions rewarded, means over EVERY steps."""
    blocks = [steps[at : at + EVERY[NETWORK]] for at in range(0, len(steps), EVERY[NETWORK])]
    return {
        "entropy": [fmean(step["entropy"] for step in block) for block in blocks],
        "success": [fmean(step["reward"] for step in block) for block in blocks],
    }


def collect() -> None:
    """Add the measured runs to table.csv and network.csv, and the courses of both to courses.csv.gz."""
    measured, courses = STUDY.measured(), []
    for file, conditions, every in (
        ("table.csv", IN_TABLE, EVERY[TABLE]),
        ("network.csv", IN_NETWORK, EVERY[NETWORK]),
    ):
        rows = []
        for condition in conditions:
            for row in measured[condition]:
                entropy, success = row.pop("entropy"), row.pop("success")
                rows.append({"condition": condition, **row})
                for place, (nats, share) in enumerate(zip(entropy, success, strict=True), start=1):
                    point = {"step": every * place, "entropy": nats, "success": share}
                    courses.append({"condition": condition, "seed": row["seed"], **point})
        add_rows(HERE / file, rows, ("condition", "seed"), list(conditions))
    add_rows(HERE / "courses.csv.gz", courses, ("condition", "seed", "step"), [*IN_TABLE, *IN_NETWORK])


def read() -> None:
    """contrasts.csv, the README's tables and figure.png, from what `collect` wrote."""
    rows, in_network = read_rows(HERE / "table.csv"), read_rows(HERE / "network.csv")
    found = contrasts(rows, PLANNED)
    write_rows(HERE / "contrasts.csv", found)
    tables = {
        "ends": ends(rows, IN_TABLE),
        "contrasts": contrast_table(found),
        "network": ends(in_network, IN_NETWORK),
        "cost": cost_table(rows),
        "network cost": cost_table(in_network),
    }
    fill(HERE / "README.md", tables)
    courses = [row for row in read_rows(HERE / "courses.csv.gz") if row["condition"] in IN_TABLE]
    draw(HERE / "figure.png", courses, drawn)


def ends(rows: Sequence[Mapping[str, Any]], conditions: Iterable[str]) -> str:
    """Start and end by method."""
    fields = ("entropy_half", "entropy_end", "train_end", "pass_1", "pass_8", "pass_32", "distinct")
    titles = ("entropy, half-way", "entropy, end", "success, training", "pass@1", "pass@8", "pass@32", "distinct")
    lines = []
    for name in conditions:
        own = [row for row in rows if row["condition"] == name]
        if not lines:
            begun = (summary(own, "start_1"), "-", summary(own, "start_32"), "-")
            lines.append(("the start", len(own), "-", "-", "-", *begun))
        if own:
            lines.append((name.removeprefix("network, "), len(own), *(summary(own, field) for field in fields)))
    return table(("method", "n", *titles), lines)


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Each method beside GRPO on the same seeds: entropy, and success on the training tasks below it."""
    methods = [name for name in IN_TABLE if name != STANDARD and any(row["condition"] == name for row in rows)]
    blocks = math.ceil(len(methods) / COLUMNS)
    figure = Figure(figsize=(2.1 * COLUMNS + 0.6, 4.2 * blocks + 0.4), layout="constrained")
    grid = figure.subplots(2 * blocks, COLUMNS, sharex=True, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    for place, method in enumerate(methods):
        above, below = grid[2 * (place // COLUMNS) : 2 * (place // COLUMNS) + 2, place % COLUMNS]
        seeds = {row["seed"] for row in rows if row["condition"] == method}
        own = [row for row in rows if row["seed"] in seeds]
        for axis, quantity in ((above, "entropy"), (below, "success")):
            drawn_courses(axis, own, STANDARD, INK, STANDARD, quantity)
            drawn_courses(axis, own, method, BLUE, "method of the panel", quantity)
            axis.set_axis_on()
            axis.tick_params(labelleft=place % COLUMNS == 0, labelbottom=axis is below)
        above.axhline(HOLD[TABLE], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), label=f"{HOLD[TABLE]:g} nats")
        above.set_title(f"{method}, n = {len(seeds)}")
        above.set_ylim(0, 1.5)
        below.set_ylim(0, 1)
        if place % COLUMNS == 0:
            above.set_ylabel("entropy, nats per token")
            below.set_ylabel("success, training tasks")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("optimizer step", fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
