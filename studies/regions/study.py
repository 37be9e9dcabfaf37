"""Clip or free the tokens of one region at a time: did the entropy move against the standard run as predicted?"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main
from matplotlib.figure import Figure
from tables import add_rows, contrasts, differs, draw, fill, read_rows, table, write_rows

from entrostat.report.style import BLUE, GREEN, MUTED, ORANGE, PURPLE
from entrostat.runs import Run

HERE = Path(__file__).parent
RECIPES = Path("recipes/flexible-entropy/regions")
REGIONS = ("E1", "E2", "E3", "E4")
CONVENTIONS = ("surprisal", "exact", "probability")
RISES_WHEN_CLIPPED = ("E1", "E4")
BASE = "standard"
LAST = 8

STUDY = Study(
    "regions",
    {
        BASE: Condition(RECIPES / "standard.yaml"),
        **{
            f"clip {region}, {convention}": Condition(
                RECIPES / f"clip-{region.lower()}.yaml", [f"control.reweighting.convention={convention}"]
            )
            for convention in CONVENTIONS
            for region in REGIONS
        },
        **{f"free {region}": Condition(RECIPES / f"free-{region.lower()}.yaml") for region in REGIONS},
    },
    common=("tasks.seed=0", "tasks.select=1", "tasks.report=1", "grading.workers=1"),
)


def row_of(condition: str, run: Run) -> dict[str, Any]:
    """A run's mean entropy over its steps, and over the LAST ones; shares of clipped tokens after the first pass."""
    steps = run.steps()
    later = [step for step in steps if step["epoch"] > 0]
    return {
        "condition": condition,
        "seed": run.seed,
        "entropy": fmean(step["entropy"] for step in steps),
        "entropy_last": fmean(step["entropy"] for step in steps[-LAST:]),
        "clipped_low": fmean(step["clip_fraction_low"] for step in later),
        "clipped_high": fmean(step["clip_fraction_high"] for step in later),
        "reward_last": steps[-1]["reward"],
    }


def predicted(condition: str) -> int:
    """The sign of the change of entropy against the standard run."""
    action, region = condition[:4], condition[5:7]
    return (1 if region in RISES_WHEN_CLIPPED else -1) * (1 if action == "clip" else -1)


def collect() -> None:
    """Add finished runs to results.csv."""
    rows = [row_of(condition, run) for condition in STUDY.conditions for run in STUDY.finished(condition)]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))


def read() -> None:
    """contrasts.csv, the README's table and figure.png, from results.csv."""
    rows = read_rows(HERE / "results.csv")
    planned = [(condition, BASE, "entropy_last") for condition in STUDY.conditions if condition != BASE]
    found = [{"predicted": predicted(one["condition"]), **one} for one in contrasts(rows, planned)]
    write_rows(HERE / "contrasts.csv", found)
    base = {row["seed"]: row["entropy_last"] for row in rows if row["condition"] == BASE}
    lines = []
    for one in found:
        own = [row for row in rows if row["condition"] == one["condition"]]
        clipped = [f"{fmean(row[side] for row in own):.3f}" for side in ("clipped_low", "clipped_high")]
        sign = "up" if one["predicted"] > 0 else "down"
        agree = sum((row["entropy_last"] - base[row["seed"]]) * one["predicted"] > 0 for row in own)
        p = f"{one['p_holm']:.3f}"
        lines.append((one["condition"], sign, differs(one), f"{agree} of {one['n']}", p, ", ".join(clipped)))
    head = ("condition", "predicted", "entropy against standard", "as predicted", "Holm p", "clipped low, high")
    fill(HERE / "README.md", {"regions": table(head, lines)})
    kept = ("condition", "difference", "low", "high")
    intervals = [
        {name: value for name, value in one.items() if name in kept} for one in read_rows(HERE / "contrasts.csv")
    ]
    heights = [{name: row[name] for name in ("condition", "seed", "entropy_last")} for row in rows]
    draw(HERE / "figure.png", {"rows": heights, "found": intervals}, drawn)


def drawn(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Every seed's difference from the standard run, its mean and interval; a group per region."""
    rows, found = data["rows"], data["found"]
    base = {row["seed"]: row["entropy_last"] for row in rows if row["condition"] == BASE}
    hands = {**{f"clip {{}}, {name}": name for name in CONVENTIONS}, "free {}": "freed"}
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    for offset, ((pattern, label), colour) in enumerate(zip(hands.items(), (BLUE, GREEN, PURPLE, ORANGE), strict=True)):
        for place, region in enumerate(REGIONS):
            x, condition = place + 0.18 * (offset - 1.5), pattern.format(region)
            own = [row for row in rows if row["condition"] == condition and row["seed"] in base]
            one = next((one for one in found if one["condition"] == condition), None)
            if one is None:
                continue
            differences = [row["entropy_last"] - base[row["seed"]] for row in own]
            axis.scatter([x] * len(own), differences, color=colour, s=9, alpha=0.5, linewidths=0)
            named = {"label": label if label == "freed" else f"clipped, {label}"} if place == 0 else {}
            bars = [[one["difference"] - one["low"]], [one["high"] - one["difference"]]]
            axis.errorbar(x, one["difference"], bars, color=colour, fmt="_", markersize=11, **named)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    signs = {1: "up", -1: "down"}
    titles = [
        f"{region}\nclipped: {signs[predicted(f'clip {region}')]}\nfreed: {signs[predicted(f'free {region}')]}"
        for region in REGIONS
    ]
    axis.set_xticks(range(len(REGIONS)), titles)
    axis.set_ylabel("entropy minus the standard run's, nats")
    axis.set_title("Change of entropy seed by seed; below each region what was predicted")
    figure.legend(loc="outside right center", frameon=False)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect)
