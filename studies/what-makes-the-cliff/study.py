"""Run the study: the demo's REINFORCE run, and the same with one suspect removed at a time.

python studies/what-makes-the-cliff/study.py run [CONDITION ...] [--seeds 0 1 2 3 4]   # resumes what was killed
python studies/what-makes-the-cliff/study.py read                                      # results.csv, figure.png
"""

from __future__ import annotations

import argparse
import csv
from importlib import resources
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from entrostat.engine.train import train
from entrostat.recipe import load_recipe
from entrostat.runs import Run, Trajectory, bootstrap_mean

HERE = Path(__file__).parent
RUNS = Path("runs/what-makes-the-cliff")
BASE = Path(str(resources.files("entrostat.assets") / "demo" / "reinforce.yaml"))

CONDITIONS = {
    "as in the demo": [],
    "one pass a batch": ["update.epochs=1", "campaign.checkpoint_every=20"],
    "clip at .2": ["update.objective=clip"],
    "rewards 0 and 1": ["update.failure_reward=0"],
    "minus the batch mean": ["update.baseline=batch-mean"],
    "GRPO unclipped": ["update.advantage=grpo", "update.objective=reinforce"],
    "GRPO, clip at .2": ["update.advantage=grpo", "update.objective=clip"],
    "GRPO, ID": ["update.advantage=grpo", "update.objective=clip", "control.strategy.name=id"],
    "rate held at 5e-4": ["update.learning_rate=5e-4", "update.warmup_steps=33"],
    "GRPO, 5e-4": [
        "update.advantage=grpo",
        "update.objective=clip",
        "update.learning_rate=5e-4",
        "update.warmup_steps=33",
    ],
    "GRPO, ID, 5e-4": [
        "update.advantage=grpo",
        "update.objective=clip",
        "control.strategy.name=id",
        "update.learning_rate=5e-4",
        "update.warmup_steps=33",
    ],
}


def folder(condition: str, seed: int) -> Path:
    """Where a run of the study lives."""
    name = condition.lower().replace(",", "").replace(" ", "-").replace(".", "")
    return RUNS / name / str(seed)


def run(conditions: list[str], seeds: list[int]) -> None:
    """Train every condition on every seed."""
    for seed in seeds:
        for condition in conditions:
            often = [] if condition == "as in the demo" else ["evaluation.every=4"]
            recipe = load_recipe(BASE, [*CONDITIONS[condition], *often, f"seed={seed}"])
            train(recipe, folder(condition, seed))
            print(condition, seed, "done", flush=True)


def read() -> None:
    """Write results.csv, a row a run, and figure.png; print a row a condition."""
    rows, curves = [], {}
    for condition in CONDITIONS:
        for path in sorted((RUNS / folder(condition, 0).parent.name).glob("*")):
            record = Run.open(path)
            report = Trajectory.from_evals(record.evals("report"))
            select = Trajectory.from_evals(record.evals("select"))
            steps = record.steps()
            curves.setdefault(condition, []).append(report)
            rows.append(
                {
                    "condition": condition,
                    "seed": record.seed,
                    "start": report.pass_at_1[0],
                    "peak_step": select.peak_step,
                    "peak": report.at(select.peak_step),
                    "end": report.end,
                    "gap": report.at(select.peak_step) - report.end,
                    "entropy_start": steps[0]["entropy"],
                    "entropy_end": steps[-1]["entropy"],
                    "steps": steps[-1]["step"],
                    "ratio_outside_max": max(line["ratio_outside"] for line in steps),
                    "log_ratio_min_punished": min(line["log_ratio_min_punished"] or 0.0 for line in steps),
                }
            )
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    for condition in curves:
        own = [row for row in rows if row["condition"] == condition]
        cells = [f"{condition:<22} n={len(own)}"]
        for field in ("peak", "end", "gap"):
            values = [row[field] for row in own]
            found = bootstrap_mean(values)
            interval = f"[{found.low:.2f}, {found.high:.2f}]" if len(values) > 1 else ""
            cells.append(f"{field} {found.mean:.2f} {interval}")
        print("  ".join(cells), " collapsed", sum(row["gap"] > 0.2 for row in own))
    draw(curves)


def draw(curves: dict[str, list[Trajectory]]) -> None:
    """Small multiples: pass@1 on the report split over optimizer steps, a line a seed."""
    columns = 5
    figure = Figure(figsize=(13, 2.6 * -(-len(curves) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(curves) // columns), columns, sharex=True, sharey=True, squeeze=False).flat
    for axis, (condition, trajectories) in zip(axes, curves.items(), strict=False):
        for trajectory in trajectories:
            axis.plot(trajectory.steps, trajectory.pass_at_1, color="#0072b2", linewidth=1.1, alpha=0.75)
        axis.set_title(condition, fontsize=10, loc="left")
        axis.set_ylim(0, 0.85)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes):
        axis.set_visible(False)
    figure.supxlabel("optimizer step", fontsize=10)
    figure.supylabel("pass@1, report split", fontsize=10)
    FigureCanvasAgg(figure).print_figure(HERE / "figure.png", dpi=160)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "read"])
    parser.add_argument("conditions", nargs="*", default=list(CONDITIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    if args.action == "run":
        run(args.conditions, args.seeds)
    else:
        read()


if __name__ == "__main__":
    main()
