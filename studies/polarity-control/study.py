"""Polarity-aware reweighting beside its rivals at equal compute: entropy, pass@1, pass@k, steps to a given pass@1."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from common import Condition, Study, cell, contrast, end_row, main, measure_end, write_csv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from entrostat.runs import Run, Trajectory, holm

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")
GRPO = RECIPES / "grpo.yaml"
OURS = "polarity-aware, rewarded"
LEVEL = 0.6


def weighted(name: str, **settings: object) -> Condition:
    """GRPO with a reweighting."""
    return Condition(GRPO, [f"control.reweighting={json.dumps({'name': name, **settings})}"])


STUDY = Study(
    "polarity-control",
    {
        "GRPO": Condition(GRPO),
        "polarity-aware, hold": Condition(RECIPES / "polarity-aware.yaml"),
        "polarity-aware, fall": weighted("polarity-aware", reference={"points": [[0, 0.28], [1, 0.05]]}),
        "polarity-aware, rewarded": weighted(
            "polarity-aware", rewarded_only=True, reference={"points": [[0, 0.28], [1, 0.12]]}
        ),
        "DAPO-style": Condition(GRPO, ["control.strategy=clip-higher"]),
        "entropy bonus": Condition(GRPO, ["control.bonus={name: constant, value: 0.01}"]),
        "80/20": weighted("80/20"),
        "OPEFO": weighted("opefo"),
        "STARE": weighted("stare"),
        "STEER": weighted("steer"),
        "EntroPIC": weighted("entropic", target=0.28),
    },
    common=("tasks.select=8", "grading.workers=1", "control.measure_change=false"),
)


def steps_to(run: Run, level: float) -> float:
    """The first evaluated step whose pass@1 on the report split reaches `level`; the run's length where none does."""
    report = Trajectory.from_evals(run.evals("report"))
    return next((s for s, p in zip(report.steps, report.pass_at_1, strict=True) if p >= level), report.steps[-1])


def row_of(condition: str, run: Run) -> dict[str, Any]:
    """A run as a row: its end, its mean entropy, the share of clipped tokens, how soon it reached LEVEL."""
    steps = run.steps()
    clipped = [step["clip_fraction_low"] + step["clip_fraction_high"] for step in steps if step["epoch"] > 0]
    return end_row(condition, run) | {
        "mean_entropy": fmean(step["entropy"] for step in steps),
        "clipped": fmean(clipped),
        "steps_to_level": float(steps_to(run, LEVEL)),
    }


def read() -> None:
    """Write results.csv, contrasts.csv and figure.png; print a row a condition and a row a contrast with GRPO."""
    rows = [row_of(condition, run) for condition in STUDY.conditions for run in list(STUDY.finished(condition))]
    write_csv(HERE / "results.csv", rows)
    fields = ("entropy", "clipped", "pass_1", "pass_8", "pass_16", "distinct", "steps_to_level")
    for condition in STUDY.conditions:
        own = [row for row in rows if row["condition"] == condition]
        if own:
            cells = [f"{field} {cell([row[field] for row in own], 3)}" for field in fields]
            print(f"{condition:<16} n={len(own)}", *cells)
    contrasts = [
        contrast(rows, OURS, other, field)
        for field in ("pass_1", "pass_8", "pass_16", "entropy")
        for other in STUDY.conditions
        if other != OURS
    ]
    contrasts = [one for one in contrasts if one]
    adjusted = holm([one["p"] for one in contrasts])
    for one, p in zip(contrasts, adjusted, strict=True):
        one["p_holm"] = p
        print(
            f"{OURS} - {one['other']:<20} {one['field']:<8} {one['difference']:+.3f} "
            f"[{one['low']:+.3f}, {one['high']:+.3f}] n={one['n']} p {one['p']:.2f}, Holm {p:.2f}"
        )
    write_csv(HERE / "contrasts.csv", contrasts)
    draw(rows)


def draw(rows: Sequence[Mapping[str, Any]]) -> None:
    """Entropy and pass@1 over the steps, the mean over seeds of each condition; pass@k at the end."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    entropy, passed, passes = figure.subplots(1, 3)
    for place, condition in enumerate(STUDY.conditions):
        runs = list(STUDY.finished(condition))
        if not runs:
            continue
        ours = condition == OURS
        style = {"color": "black" if ours else f"C{place % 10}", "linewidth": 2.4 if ours else 1.2, "label": condition}
        style["linestyle"] = "-" if place < 10 else "--"
        curves = np.mean([[step["entropy"] for step in run.steps()] for run in runs], axis=0)
        entropy.plot(range(1, len(curves) + 1), curves, **style)
        reports = [Trajectory.from_evals(run.evals("report")) for run in runs]
        passed.plot(reports[0].steps, np.mean([report.pass_at_1 for report in reports], axis=0), **style)
        ks = (1, 2, 4, 8, 16)
        own = [row for row in rows if row["condition"] == condition]
        passes.plot(ks, [fmean(row[f"pass_{k}"] for row in own) for k in ks], marker="o", markersize=3, **style)
    passes.set_xscale("log", base=2)
    passes.set_xticks((1, 2, 4, 8, 16), ("1", "2", "4", "8", "16"))
    titles = ("entropy, nats", "pass@1, report split", "pass@k at the end, report split")
    for axis, title, label in zip((entropy, passed, passes), titles, ("step", "step", "k"), strict=True):
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel(label, fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*passes.get_legend_handles_labels(), loc="outside right center", fontsize=9, frameon=False)
    FigureCanvasAgg(figure).print_figure(HERE / "figure.png", dpi=150)


if __name__ == "__main__":
    main(STUDY, read, measure_end)
