"""The entropy of a pretrained model on a curve: SmolLM2-135M on one-line functions, beside GRPO.

The command line is that of the other studies; see `studies/common.py`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import correlation, fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from on_a_curve import SKIPPED, drawn_courses, drawn_curve, error_on, noise
from tables import add_rows, draw, fill, read_rows, table

from entrostat.report.style import BLUE, MUTED

HERE = Path(__file__).parent
RECIPE = Path("recipes/thermostat/smollm2.yaml")
CURVE = [[0, 1.0], [0.3, 0.5], [0.65, 0.9], [1, 0.3]]  # in multiples of the first entropy, as in the recipe
GRPO, STEERED = "GRPO", "target-weights"
ENGINES = {"embedded": "", "trl": ", TRL"}  # what each adds to the name of a method
STUDY = MeasuredStudy(
    "thermostat-smollm2",
    {
        method + added: Condition(RECIPE, [f"engine={engine}", *settings])
        for engine, added in ENGINES.items()
        for method, settings in ((GRPO, ["control.reweighting=null"]), (STEERED, []))
    },
)
FIELDS = ("error", "rising", "noise", "reward", "mixed", "pass_start", "pass_end", "pass_4", "distinct", "flow")


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    from entrostat.runs import Run

    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps, evaluations = run.steps(), run.evals("report")
    course = [step["entropy"] for step in steps]
    points = [(share, times * course[0]) for share, times in CURVE]
    first, second = steps[::2], steps[1::2]  # the two passes over each batch
    row = {
        "seed": run.seed,
        "error": error_on(points, course),
        "rising": fmean(course[34:40]) / fmean(course[14:20]),
        "noise": noise(course[::2]),
        "reward": fmean(step["reward"] for step in first[-6:]),
        "mixed": fmean(share_mixed(step) for step in first[SKIPPED // 2 :]),
        "pass_start": evaluations[0]["pass_at"]["1"],
        "pass_end": evaluations[-1]["pass_at"]["1"],
        "pass_4": evaluations[-1]["pass_at"]["4"],
        "distinct": evaluations[-1]["distinct"],
        "flow": correlation(
            [step["flow_up"] + step["flow_down"] for step in first],
            [after["entropy"] - before["entropy"] for before, after in zip(first, second, strict=True)],
        ),
        "course": course,
    }
    (folder / "row.json").write_text(json.dumps(row))


def share_mixed(step: Mapping[str, Any]) -> float:
    """The share of groups whose rewards differ; TRL logs that of the others, with the first pass over a batch."""
    return float(step["groups"]["mixed"]) if "groups" in step else 1 - float(step["frac_reward_zero_std"])


def collect() -> None:
    """Add the measured runs to results.csv and courses.csv."""
    rows, courses = [], []
    for condition, measured in STUDY.measured().items():
        for row in measured:
            course = row.pop("course")
            rows.append({"condition": condition, **row})
            courses += [
                {"condition": condition, "seed": row["seed"], "step": step, "entropy": value}
                for step, value in enumerate(course, 1)
            ]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))
    add_rows(HERE / "courses.csv", courses, ("condition", "seed", "step"), list(STUDY.conditions))


def read() -> None:
    """The table of the README and the figure, from the tables that `collect` writes."""
    fill(HERE / "README.md", {"runs": runs_table(read_rows(HERE / "results.csv"))})
    draw(HERE / "courses.png", read_rows(HERE / "courses.csv"), drawn)


def runs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per run: two or three seeds have no interval that would say anything."""
    head = ("", "seed", "error", "H 35-40 / H 15-20", "batch noise", "reward, last 12", "mixed groups")
    head += ("pass@1 before", "pass@1 after", "pass@4", "distinct", "flow against change")
    lines = [(row["condition"], str(row["seed"]), *(f"{row[field]:.2f}" for field in FIELDS)) for row in rows]
    return table(head, lines)


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel per engine and seed: the curve, the entropy under GRPO and on the curve."""
    runs = {(row["condition"], row["seed"]) for row in rows}
    panels = [(added, seed) for added in ENGINES.values() for name, seed in sorted(runs) if name == GRPO + added]
    figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (added, seed) in zip(axes, panels, strict=True):
        own = [row for row in rows if row["seed"] == seed]
        for method, colour in ((GRPO, MUTED), (STEERED, BLUE)):
            drawn_courses(axis, own, method + added, colour, method)
        start = next(row["entropy"] for row in own if row["condition"] == STEERED + added and row["step"] == 1)
        drawn_curve(axis, [(share, times * start) for share, times in CURVE], max(row["step"] for row in own))
        axis.set_title(f"{added.removeprefix(', ') or 'embedded engine'}, seed {seed}")
        axis.grid(axis="y")
    axes[0].set_ylim(0)
    axes[0].set_ylabel("entropy of the batch, nats per token")
    axes[0].legend(loc="upper right", frameon=False, fontsize=7)
    figure.supxlabel("optimizer step", fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
