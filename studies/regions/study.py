"""Clip or free the tokens of one region at a time: did the entropy move against the standard run as predicted?"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl
from common import Condition, Study, contrast, main, with_committed, write_csv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from entrostat.report.style import BLUE, GREEN, MUTED, ORANGE, PURPLE, SETTINGS
from entrostat.runs import Run, holm

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
    common=("tasks.select=1", "tasks.report=1", "grading.workers=1"),
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


def read() -> None:
    """Write results.csv, contrasts.csv and figure.png; print a row a condition."""
    measured = [row_of(condition, run) for condition in STUDY.conditions for run in STUDY.finished(condition)]
    rows = with_committed(measured, HERE / "results.csv", ("condition", "seed"))
    write_csv(HERE / "results.csv", rows)
    found = [
        {"condition": condition, "predicted": predicted(condition), **one}
        for condition in STUDY.conditions
        if condition != BASE and (one := contrast(rows, condition, BASE, "entropy_last"))
    ]
    for one, p in zip(found, holm([one["p"] for one in found]), strict=True):
        one["p_holm"] = p
    write_csv(HERE / "contrasts.csv", found)
    base = {row["seed"]: row["entropy_last"] for row in rows if row["condition"] == BASE}
    print("| condition | predicted | entropy against standard | as predicted | Holm p | clipped low, high |")
    print("|---|---|---|---|---|---|")
    for one in found:
        own = [row for row in rows if row["condition"] == one["condition"]]
        clipped = [f"{fmean(row[side] for row in own):.3f}" for side in ("clipped_low", "clipped_high")]
        sign = "up" if one["predicted"] > 0 else "down"
        agree = sum((row["entropy_last"] - base[row["seed"]]) * one["predicted"] > 0 for row in own)
        print(
            f"| {one['condition']} | {sign} | {one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] "
            f"| {agree} of {one['n']} | {one['p_holm']:.3f} | {', '.join(clipped)} |"
        )
    draw(rows, found)


def draw(rows: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> None:
    """Every seed's difference from the standard run, its mean and interval; a group a region."""
    base = {row["seed"]: row["entropy_last"] for row in rows if row["condition"] == BASE}
    hands = {**{f"clip {{}}, {name}": name for name in CONVENTIONS}, "free {}": "freed"}
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axis = figure.subplots()
        for offset, ((pattern, label), colour) in enumerate(
            zip(hands.items(), (BLUE, GREEN, PURPLE, ORANGE), strict=True)
        ):
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
        FigureCanvasAgg(figure).print_figure(HERE / "figure.png", dpi=150)


if __name__ == "__main__":
    main(STUDY, read)
