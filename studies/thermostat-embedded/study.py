"""The entropy on a curve under the embedded transformer: error, pass@1, pass@16 and distinct solutions against GRPO.

The command line is that of the other studies; see `studies/common.py`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from on_a_curve import drawn_courses, drawn_curve, error_on, noise
from tables import add_rows, contrast_table, contrasts, draw, fill, read_rows, summary, table, write_rows

from entrostat.report.style import BLUE, MUTED

HERE = Path(__file__).parent
RECIPE = Path("recipes/thermostat/embedded.yaml")
STANDARD = "GRPO"
CURVES = {
    "falling": [[0, 0.28], [1, 0.10]],
    "up and down": [[0, 0.28], [0.35, 0.15], [0.65, 0.25], [1, 0.12]],
}
EVERY = 4  # steps whose mean is one point of a course


def weighted(curve: str, **settings: object) -> list[str]:
    """target-weights on a curve."""
    chosen = {"name": "target-weights", "strength": 0.9, "curve": {"points": CURVES[curve]}, **settings}
    return [f"control.reweighting={json.dumps(chosen)}"]


CONDITIONS = {
    STANDARD: ["control.reweighting=null"],
    "target-weights, falling": weighted("falling"),
    "target-weights, up and down": weighted("up and down"),
    "rewarded only, falling": weighted("falling", punished=0),
}
OTHERS = [name for name in CONDITIONS if name != STANDARD]
STUDY = MeasuredStudy(
    "thermostat-embedded", {name: Condition(RECIPE, settings) for name, settings in CONDITIONS.items()}
)


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    from entrostat.runs import Run

    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps, report = run.steps(), run.evals("report")[-1]
    course = [step["entropy"] for step in steps]
    firsts = [step["entropy"] for step in steps if step["epoch"] == 0]
    row = {
        "seed": run.seed,
        **{f"error_{name}": error_on(points, course) for name, points in CURVES.items()},
        "noise": noise(firsts),
        "entropy_end": fmean(course[-EVERY:]),
        **{f"pass_{k}": report["pass_at"][str(k)] for k in (1, 4, 16)},
        "distinct": report["distinct"],
        "seconds": json.loads((folder / "seconds.json").read_text()),
        "course": [round(fmean(course[k : k + EVERY]), 4) for k in range(0, len(course), EVERY)],
    }
    (folder / "row.json").write_text(json.dumps(row))


def collect() -> None:
    """Add the measured runs to results.csv and courses.csv."""
    rows, courses = [], []
    for condition, measured in STUDY.measured().items():
        for row in measured:
            course = row.pop("course")
            rows.append({"condition": condition, **row})
            courses += [
                {"condition": condition, "seed": row["seed"], "step": EVERY * place + EVERY / 2, "entropy": value}
                for place, value in enumerate(course)
            ]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))
    add_rows(HERE / "courses.csv", courses, ("condition", "seed", "step"), list(STUDY.conditions))


def planned() -> list[tuple[str, str, str]]:
    """The contrasts that were planned before the runs, in one family."""
    errors = [(name, STANDARD, f"error_{name.partition(', ')[2]}") for name in OTHERS]
    return errors + [(name, STANDARD, field) for field in ("pass_1", "pass_16", "distinct") for name in OTHERS]


def read() -> None:
    """The contrasts, the tables of the README and the figure, from the tables that `collect` writes."""
    rows = read_rows(HERE / "results.csv")
    found = contrasts(rows, planned())
    write_rows(HERE / "contrasts.csv", found)
    tables = {"ends": ends_table(rows), "contrasts": contrast_table(found)}
    fill(HERE / "README.md", tables)
    draw(HERE / "courses.png", read_rows(HERE / "courses.csv"), drawn)


def ends_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Errors and the end of the run by condition."""
    fields = ("error_falling", "error_up and down", "noise", "pass_1", "pass_16", "distinct", "entropy_end", "seconds")
    lines = []
    for condition in CONDITIONS:
        own = [row for row in rows if row["condition"] == condition]
        values = [summary(own, field, 0 if field == "seconds" else 3) for field in fields]
        lines.append((condition, len(own), *values))
    head = ("", "n", "error, falling", "error, up and down", "batch noise", "pass@1", "pass@16", "distinct", "entropy")
    return table((*head, "CPU seconds"), lines)


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel per controlled condition: its curve, every seed and the mean, and GRPO's."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    last = max(row["step"] for row in rows)
    axes = figure.subplots(1, len(OTHERS), sharex=True, sharey=True)
    for axis, condition in zip(axes, OTHERS, strict=True):
        method, _, curve = condition.partition(", ")
        drawn_courses(axis, rows, STANDARD, MUTED, STANDARD)
        drawn_courses(axis, rows, condition, BLUE, method)
        drawn_curve(axis, CURVES[curve], last)
        axis.set_title(condition)
        axis.grid(axis="y")
    for axis in (axes[0], axes[-1]):  # the curve of the middle one is where its legend would be
        axis.legend(loc="upper right", frameon=False, fontsize=7)
    axes[0].set_ylim(0)
    axes[0].set_ylabel("entropy of the batch, nats per token")
    figure.supxlabel("optimizer step", fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
