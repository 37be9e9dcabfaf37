"""A policy whose entropy is known exactly: valve against learning by share of random rewards; entropy prediction."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from tables import (
    add_rows,
    cell,
    contrast_table,
    contrasts,
    cost_table,
    differs,
    dots,
    draw,
    fill,
    read_rows,
    summary,
    table,
    write_rows,
)

from entrostat.report.style import AMBER, BLUE, GREEN, INK, MUTED, ORANGE, PURPLE
from entrostat.runs import Run, mean_interval

HERE = Path(__file__).parent
VALVE, PREDICTION = Path("recipes/tabular/valve.yaml"), Path("recipes/tabular/prediction.yaml")
HOLD = 0.9  # nats per token, the target of every method that has one
CURVE = f"{{points: [[0, {HOLD}]]}}"

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ENDS = (0.0, 1.0)
STANDARD = "GRPO"
CORE = {
    STANDARD: "control.strategy=constant",
    "clip-higher": "control.strategy=clip-higher",
    "ID": "control.strategy=id",
    "DID": "control.strategy=did",
    "OD": "control.strategy=od",
}
OTHERS = {
    "target-entropy": f"control.strategy={{name: target-entropy, curve: {CURVE}}}",
    "target-weights": f"control.reweighting={{name: target-weights, curve: {CURVE}}}",
    "adaptive bonus": f"control.bonus={{name: adaptive, target: {HOLD}}}",
    "entropic": f"control.reweighting={{name: entropic-weights, target: {HOLD}}}",
    "stare": f"control.reweighting={{name: stare, target: {HOLD}}}",
    "polarity-aware": "control.reweighting=polarity-aware",
    "80/20": "control.reweighting={name: 80/20, divide_by_kept: false}",
    "clip-cov": "control.reweighting=clip-cov",
    "opefo": "control.reweighting={name: opefo, off_policy: true}",
    "steer": "control.reweighting=steer",
    "entrocraft": "control.reweighting=entrocraft",
    "clip-lower": "control.strategy=clip-lower",
    "dppo": "control.strategy={name: dppo, delta: 0.2}",
    "dcpo": "control.strategy=dcpo",
    "entropy bonus": "control.bonus={name: constant, value: 0.01}",
}
OPTIMIZERS = {
    "SGD": ("update.optimizer=sgd", "update.learning_rate=2.0"),
    "Adam": ("update.optimizer=adamw", "update.learning_rate=0.03"),
}
STATES = ("prefix", "phrase")
EVERY = 8  # steps between two points of a course


def named(method: str, share: float) -> str:
    """The condition of a method at a share of random rewards."""
    return f"{method}, {share:g}"


def valve(method: str, setting: str, share: float) -> tuple[str, Condition]:
    """The condition of a method at a share of random rewards."""
    return named(method, share), Condition(VALVE, [setting, f"table.random_rewards={share}"])


VALVES = {
    **dict(valve(method, setting, share) for share in SHARES for method, setting in CORE.items()),
    **dict(valve(method, setting, share) for share in ENDS for method, setting in OTHERS.items()),
}
PREDICTIONS = {
    f"{optimizer}, {states}": Condition(PREDICTION, [*settings, f"table.states={states}"])
    for optimizer, settings in OPTIMIZERS.items()
    for states in STATES
}


STUDY = MeasuredStudy("tabular-policy", {**VALVES, **PREDICTIONS})


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps = run.steps()
    seconds = json.loads((folder / "seconds.json").read_text())
    row = valve_row(run, steps) if run.recipe["name"] == "valve" else prediction_row(steps)
    (folder / "row.json").write_text(json.dumps({"seed": run.seed, **row, "seconds": seconds}))


def valve_row(run: Run, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Exact entropy per token and success on the training tasks along a run; pass@k on the report tasks at its end."""
    course = [step["exact"] for step in steps]
    report = run.evals("report")
    return {
        "entropy_start": report[0]["entropy"],
        "entropy_middle": course[len(course) // 2 - 1]["token_entropy"],
        "entropy_end": course[-1]["token_entropy"],
        "sequence_entropy_end": course[-1]["entropy"],
        "train_end": course[-1]["success"],
        **{f"pass_{k}": report[-1]["pass_at"][str(k)] for k in (1, 4, 16)},
        "distinct": report[-1]["distinct"],
        "clipped_low": fmean(step["clip_fraction_low"] for step in steps),
        "clipped_high": fmean(step["clip_fraction_high"] for step in steps),
        "course": [round(point["token_entropy"], 4) for point in course[EVERY - 1 :: EVERY]],
    }


def prediction_row(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Correlations over the steps of the run between predicted and measured changes of entropy.

    sampled: of the step's own tokens, scored again. exact: of the entropy per token over all completions of all
    training tasks. Predictors: the flow, and the change to first order in the weights (of the step's own tokens).
    """
    exact = np.diff([step["exact"]["token_entropy"] for step in steps])
    sampled = np.array([step["measured_change"] for step in steps])
    flow = np.array([step["lr"] * (step["flow_up"] + step["flow_down"]) for step in steps])
    first = np.array([step["first_order_change"] for step in steps])
    return {
        "flow_sampled": correlation(flow, sampled),
        "flow_exact": correlation(flow[1:], exact),
        "first_order_sampled": correlation(first, sampled),
        "first_order_exact": correlation(first[1:], exact),
        "sign_flow": float((flow * sampled > 0).mean()),
        "sign_first_order": float((first * sampled > 0).mean()),
        "entropy_end": steps[-1]["exact"]["token_entropy"],
        "success_end": steps[-1]["exact"]["success"],
    }


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r."""
    return float(np.corrcoef(one, other)[0, 1])


def collect() -> None:
    """Add the measured runs to results.csv, courses.csv.gz and prediction.csv."""
    rows, courses, predictions = [], [], []
    for condition, found in STUDY.measured().items():
        for row in found:
            course = row.pop("course", None)
            if course is None:
                predictions.append({"condition": condition, **row})
                continue
            method, share = condition.rsplit(", ", 1)
            key = {"condition": condition, "method": method, "share": float(share)}
            rows.append({**key, **row})
            points = [{"step": EVERY * (place + 1), "entropy": value} for place, value in enumerate(course)]
            key = {"method": method, "share": float(share), "seed": row["seed"]}
            courses += [{**key, **point} for point in points if method in CORE]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(VALVES))
    add_rows(HERE / "courses.csv.gz", courses, ("method", "share", "seed", "step"), list(CORE))
    add_rows(HERE / "prediction.csv", predictions, ("condition", "seed"), list(PREDICTIONS))


def planned() -> list[tuple[str, str, str]]:
    """The contrasts that were planned before the runs, in one family."""
    pairs = [(method, share) for share in ENDS for method in CORE if method != STANDARD]
    fields = ("entropy_middle", "entropy_end", "pass_1", "pass_16")
    return [(named(method, share), named(STANDARD, share), field) for field in fields for method, share in pairs]


def valve_beyond_learning(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method's effect on the final entropy against GRPO, by seed, at both ends of the shares, as conditions."""
    of = {(row["condition"], row["seed"]): row["entropy_end"] for row in rows}
    return [
        {"condition": f"{method}: effect, {share:g}", "seed": seed, "effect": value - of[named(STANDARD, share), seed]}
        for method in CORE
        if method != STANDARD
        for share in ENDS
        for (condition, seed), value in of.items()
        if condition == named(method, share) and (named(STANDARD, share), seed) in of
    ]


def read() -> None:
    """contrasts.csv, others.csv, the README's tables and the figures, from the tables that `collect` writes."""
    rows, predictions = read_rows(HERE / "results.csv"), read_rows(HERE / "prediction.csv")
    main_family = contrasts(rows, planned())
    effects = [(f"{method}: effect, 1", f"{method}: effect, 0", "effect") for method in CORE if method != STANDARD]
    interactions = contrasts(valve_beyond_learning(rows), effects)
    other_pairs = [
        (named(method, share), named(STANDARD, share), field)
        for field in ("entropy_end", "pass_1")
        for share in ENDS
        for method in OTHERS
    ]
    others = contrasts(rows, other_pairs)
    write_rows(HERE / "contrasts.csv", [*main_family, *interactions])
    write_rows(HERE / "others.csv", others)
    fill(
        HERE / "README.md",
        {
            "by share": by_share(rows),
            "contrasts": contrast_table(main_family),
            "interactions": contrast_table(interactions),
            "others": others_table(others),
            "prediction": prediction_table(predictions),
            "cost": cost_table([*rows, *predictions]),
        },
    )
    drawn_rows = [{key: row[key] for key in ("method", "share", "seed", "entropy_end", "pass_1")} for row in rows]
    draw(HERE / "courses.png", read_rows(HERE / "courses.csv.gz"), courses_drawn)
    draw(HERE / "effects.png", [row for row in drawn_rows if row["method"] in CORE], effects_drawn)
    draw(HERE / "others.png", [row for row in drawn_rows if row["share"] in ENDS], others_drawn)
    fields = ("flow_sampled", "flow_exact", "first_order_sampled", "first_order_exact")
    shown = [{key: row[key] for key in ("condition", *fields)} for row in predictions]
    draw(HERE / "prediction.png", shown, prediction_drawn)


def by_share(rows: Sequence[Mapping[str, Any]]) -> str:
    """Entropy at the middle and the end, and pass@1 and pass@16 at the end, by method and share."""
    lines = []
    for share in SHARES:
        for method in CORE:
            own = [row for row in rows if (row["method"], row["share"]) == (method, share)]
            fields = ("entropy_middle", "entropy_end", "pass_1", "pass_16")
            lines.append((f"{share:g}", method, len(own), *(summary(own, field) for field in fields)))
    head = ("random", "method", "n", "entropy, middle", "entropy, end", "pass@1", "pass@16")
    return table(head, lines)


def others_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Each other method against GRPO at both ends of the shares, * where Holm's p is below .05."""
    of = {(one["condition"], one["field"]): one for one in found}

    def against(method: str, share: float, field: str) -> str:
        one = of.get((named(method, share), field))
        return "-" if one is None else differs(one) + ("*" if one["p_holm"] < 0.05 else "")

    lines = [
        (
            method,
            of[named(method, 0.0), "entropy_end"]["n"],
            *(against(method, share, field) for share in ENDS for field in ("entropy_end", "pass_1")),
        )
        for method in OTHERS
    ]
    head = (
        "method",
        "n",
        *(f"{what}, {kind} rewards" for kind in ("real", "random") for what in ("entropy", "pass@1")),
    )
    return table(head, lines)


def prediction_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean correlations over seeds."""
    lines = []
    for condition in PREDICTIONS:
        own = [row for row in rows if row["condition"] == condition]
        fields = ("flow_sampled", "flow_exact", "first_order_sampled", "first_order_exact")
        lines.append((condition, len(own), *(cell([row[field] for row in own], 2, -1, 1) for field in fields)))
    head = ("", "n", "flow, own tokens", "flow, exact", "first order, own tokens", "first order, exact")
    return table(head, lines)


COLOURS = dict(zip(CORE, (INK, AMBER, BLUE, GREEN, ORANGE), strict=True))


def courses_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A row of panels per method beside GRPO, a column per share: every seed, and the means."""
    others = [method for method in CORE if method != STANDARD]
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    grid = figure.subplots(len(others), len(SHARES), sharex=True, sharey=True)
    for line, method in zip(grid, others, strict=True):
        for axis, share in zip(line, SHARES, strict=True):
            for name in (STANDARD, method):
                own = [row for row in rows if (row["method"], row["share"]) == (name, share)]
                seeds = sorted({row["seed"] for row in own})
                steps = sorted({row["step"] for row in own})
                for seed in seeds:
                    course = [row["entropy"] for row in own if row["seed"] == seed]
                    axis.plot(steps, course, color=COLOURS[name], linewidth=0.4, alpha=0.3)
                mean = [fmean(row["entropy"] for row in own if row["step"] == step) for step in steps]
                axis.plot(steps, mean, color=COLOURS[name], linewidth=2, label=name)
            axis.grid(axis="y")
        line[-1].legend(loc="lower left", frameon=False)
    for axis, share in zip(grid[0], SHARES, strict=True):
        axis.set_title(f"{share:.0%} random rewards")
    for axis in grid[-1]:
        axis.set_xlabel("optimizer step")
    figure.supylabel("nats per token", fontsize=9)
    figure.suptitle("Exact entropy over the training tasks: every seed (thin) and the mean, with GRPO in every panel")
    return figure


def effects_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Difference from GRPO at the end by share: seeds, mean, interval; entropy above, pass@1 below."""
    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    of = {(row["method"], row["share"], row["seed"]): row for row in rows}
    others = [method for method in CORE if method != STANDARD]
    for axis, field in zip(axes, ("entropy_end", "pass_1"), strict=True):
        for offset, method in enumerate(others):
            for place, share in enumerate(SHARES):
                seeds = [key[2] for key in of if key[:2] == (method, share) and (STANDARD, share, key[2]) in of]
                values = [of[method, share, s][field] - of[STANDARD, share, s][field] for s in seeds]
                x = place + 0.18 * (offset - 1.5)
                axis.scatter([x] * len(values), values, color=COLOURS[method], s=6, alpha=0.4, linewidths=0)
                found = mean_interval(values)
                if found.low is None or found.high is None:
                    continue
                label = {"label": method} if place == 0 else {}
                bars = [[found.mean - found.low], [found.high - found.mean]]
                axis.errorbar(x, found.mean, bars, color=COLOURS[method], fmt="_", markersize=11, **label)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.grid(axis="y")
    axes[0].set_title("Final entropy minus GRPO's (0), nats per token, exact")
    axes[1].set_title("Final pass@1 on the report tasks minus GRPO's (0), exact")
    axes[1].set_xticks(range(len(SHARES)), [f"{share:.0%}" for share in SHARES])
    axes[1].set_xlabel("share of random rewards")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def others_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Final entropy of every method at both ends of the shares."""
    panels = {
        f"{title}: final entropy, nats per token": {
            method: [row["entropy_end"] for row in rows if (row["method"], row["share"]) == (method, share)]
            for method in (*CORE, *OTHERS)
        }
        for share, title in zip(ENDS, ("real rewards", "random rewards"), strict=True)
    }
    figure = dots(panels)
    for axis, groups in zip(figure.axes, panels.values(), strict=True):
        axis.axvline(fmean(groups[STANDARD]), color=INK, linewidth=0.8)
        axis.axvline(HOLD, color=PURPLE, linewidth=0.8, linestyle=(0, (4, 3)))
    figure.suptitle(f"Solid line: GRPO. Dashed: {HOLD:g}, the target of the first five methods below OD", fontsize=9)
    return figure


def prediction_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Correlation of predicted and measured change: seeds, mean and interval."""
    titles = {
        "flow_sampled": "flow, the step's own tokens",
        "flow_exact": "flow, exact",
        "first_order_sampled": "first order, own tokens",
        "first_order_exact": "first order, exact",
    }
    panels = {
        title: {name: [row[field] for row in rows if row["condition"] == name] for name in PREDICTIONS}
        for field, title in titles.items()
    }
    figure = dots(panels, width=2.2)
    for axis in figure.axes:
        axis.set_xlim(-0.5, 1.05)
        axis.axvline(0, color=MUTED, linewidth=0.8)
        axis.axvline(1, color=MUTED, linewidth=0.8)
    figure.supxlabel(
        "correlation of predicted and measured change within a run: seeds, mean, 95 % interval", fontsize=10
    )
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
