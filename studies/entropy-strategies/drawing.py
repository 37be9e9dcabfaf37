"""The figures of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from entrostat.control import Curve
from entrostat.report.style import BLUE, GRID, INK, MUTED, ORANGE

HANDS = {"target": "TargetEntropy", "adaptive bonus": "adaptive bonus"}


def _entropies(table: Sequence[Mapping[str, Any]], condition: str) -> np.ndarray:
    """(seeds, steps), empty where no run is finished."""
    own = [row for row in table if row["condition"] == condition]
    return np.array([[height for key, height in row.items() if key not in ("condition", "seed")] for row in own])


def courses(table: Sequence[Mapping[str, Any]], conditions: Sequence[str]) -> Figure:
    """The entropy of the training steps: one panel per condition, one line per seed, and both means."""
    columns = 4
    lines = -(-len(conditions) // columns)
    base = _entropies(table, "GRPO").mean(0)
    figure = Figure(figsize=(10, 1.9 * lines + 0.4), layout="constrained")
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axis, condition in zip(axes, conditions, strict=False):
        found = _entropies(table, condition)
        at = np.arange(1, len(base) + 1)
        axis.plot(at, base, color=MUTED, linewidth=1.2, linestyle="--")
        for one in found:
            axis.plot(at, one, color=BLUE, linewidth=0.6, alpha=0.45)
        if len(found):
            axis.plot(at, found.mean(0), color=BLUE, linewidth=1.8)
        axis.set_title(condition)
    for axis in axes[len(conditions) :]:
        axis.set_visible(False)
    figure.supxlabel("optimizer step (dashed: mean of GRPO)", fontsize=9, color=MUTED)
    figure.supylabel("entropy, nats", fontsize=9, color=MUTED)
    return figure


def passes(rows: Sequence[Mapping[str, Any]], conditions: Sequence[str], ks: Sequence[int]) -> Figure:
    """pass@k less that of GRPO on the same seed, over k: a panel per condition, seeds at the end and the means."""
    base = {row["seed"]: row for row in rows if row["condition"] == "GRPO"}
    others = [condition for condition in conditions if condition != "GRPO"]
    columns = 4
    lines = -(-(len(others) + 1) // columns)
    figure = Figure(figsize=(10, 1.9 * lines + 0.4), layout="constrained")
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axis, condition in zip(axes, others, strict=False):
        own = [row for row in rows if row["condition"] == condition]
        for place, colour, label in (("_middle", ORANGE, "middle"), ("", BLUE, "end")):
            less = np.array(
                [[row[f"pass_{k}{place}"] - base[row["seed"]][f"pass_{k}{place}"] for k in ks] for row in own]
            )
            if not place:
                axis.plot(ks, less.T, color=colour, linewidth=0.5, alpha=0.4)
            axis.plot(ks, less.mean(0), color=colour, marker="o", markersize=3, label=label)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.set_title(condition)
    for axis in axes[len(others) - columns : len(others)]:
        axis.tick_params(labelbottom=True)
    for axis in axes[len(others) :]:
        axis.axis("off")
    axes[len(others)].legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.supxlabel("k", fontsize=9, color=MUTED)
    figure.supylabel("pass@k less that of GRPO (0)", fontsize=9, color=MUTED)
    return figure


def tracking(table: Sequence[Mapping[str, Any]], curves: Mapping[str, Curve], start: int) -> Figure:
    """How the followers hold each curve, from the step on that the yardstick counts, and GRPO without control: mean
    and seeds.
    """
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        followers = {label: f"{hand}, {name}" for hand, label in HANDS.items()} | {"GRPO, no control": "GRPO"}
        for (label, condition), colour in zip(followers.items(), (BLUE, ORANGE, MUTED), strict=True):
            found = _entropies(table, condition)
            if not len(found):
                continue
            at = np.arange(1, found.shape[1] + 1)
            wanted = np.array([curve.at(step / len(at)) for step in at])
            for one in found:
                axis.plot(at, one, color=colour, linewidth=0.5, alpha=0.4)
            axis.plot(at, found.mean(0), color=colour, label=label)
        axis.fill_between(at, 0.85 * wanted, 1.15 * wanted, color=GRID)
        axis.plot(at, wanted, color=INK, linewidth=1.2, label="wanted, ±15 %")
        axis.axvline(start, color=MUTED, linewidth=0.6, linestyle=":")
        axis.set_title(name)
    axes[0].set_ylabel("entropy, nats")
    figure.supxlabel(f"optimizer step; the error counts from step {start} on", fontsize=9, color=MUTED)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure
