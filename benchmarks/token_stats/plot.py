"""Draw time and memory over the vocabulary and over the tokens, from the last device's lines of growth.csv."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
PANELS = {"both_s": "forward + backward, s of one core", "both_MB": "peak above inputs and gradients, MB"}


def main() -> None:
    with (HERE / "growth.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["device"] == rows[-1]["device"]]
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex="col", layout="constrained")
    for row_axes, (field, label) in zip(axes, PANELS.items(), strict=True):
        draw(row_axes[0], [r for r in rows if r["tokens"] == "512"], "vocabulary", field)
        draw(row_axes[1], [r for r in rows if r["vocabulary"] == "37984"], "tokens", field)
        row_axes[0].set_ylabel(label)
    axes[1][0].set_xlabel("vocabulary V (512 tokens)")
    axes[1][1].set_xlabel("tokens N (vocabulary 37 984)")
    axes[0][0].legend(fontsize=8)
    figure.suptitle(
        "log-probability of each token from hidden states (D = 896, bfloat16); entrostat gives H, sum p² and C, too"
    )
    figure.savefig(HERE / "growth.png", dpi=120)


def draw(axis: Axes, rows: list[dict[str, str]], x: str, field: str) -> None:
    """A line for each method, on logarithmic axes, on which a straight line of slope 1 is linear growth."""
    lines = defaultdict(list)
    for row in rows:
        if row.get(field):
            lines[row["method"]].append((int(row[x]), max(float(row[field]), 0.1)))
    for method, points in lines.items():
        ours = method == "entrostat fused"
        axis.plot(*zip(*sorted(points), strict=True), "o-" if ours else ".--", lw=2.5 if ours else 1.2, label=method)
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = sorted({int(row[x]) for row in rows})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
