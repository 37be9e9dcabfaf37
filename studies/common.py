"""What the studies share: conditions x seeds as run folders, the command line, the table's CSV and intervals.

A study is a script in a folder of its own: python studies/NAME/study.py run [CONDITION ...] [--seeds 0 1 2 3 4]
resumes what was killed and skips what is finished; python studies/NAME/study.py read writes its results.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from entrostat.engine.checkpoint import CheckpointStore
from entrostat.engine.evaluate import evaluate
from entrostat.engine.policy import load_policy
from entrostat.engine.train import grader_of, train
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, load_recipe
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run, RunError, Trajectory, bootstrap_mean, paired_bootstrap

RUNS = Path("runs")
SAMPLES = 16
PASS_AT = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Condition:
    """A recipe file and what is changed in it."""

    recipe: Path
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Study:
    """Conditions that are trained on the same seeds; common: overrides of all of them."""

    name: str
    conditions: Mapping[str, Condition]
    common: Sequence[str] = ()

    def folder(self, condition: str, seed: int) -> Path:
        """Where a run of the study lives."""
        plain = "".join(c if c.isalnum() else "-" for c in condition.lower())
        return RUNS / self.name / plain / str(seed)

    def recipe(self, condition: str, seed: int) -> Recipe:
        """What a condition trains by."""
        own = self.conditions[condition]
        return load_recipe(own.recipe, [*self.common, *own.overrides, f"seed={seed}"])

    def run(self, condition: str, seed: int, grader: CodeGrader | None = None) -> Path:
        """Train one condition on one seed; returns its folder."""
        train(self.recipe(condition, seed), self.folder(condition, seed), grader=grader)
        return self.folder(condition, seed)

    def finished(self, condition: str) -> Iterator[Run]:
        """The condition's finished runs, by seed."""
        for path in sorted(self.folder(condition, 0).parent.glob("*"), key=lambda p: int(p.name)):
            try:
                run = Run.open(path)
            except RunError:
                continue
            if (path / "checkpoints").exists() and _ended(run):
                yield run


def _ended(run: Run) -> bool:
    steps = run.steps()
    return bool(steps) and steps[-1]["step"] >= run.recipe["campaign"]["steps"]


def main(study: Study, read: Callable[[], None], after_run: Callable[[Path], None] | None = None) -> None:
    """The command line of a study; after_run: what is measured on a finished run's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "read"])
    parser.add_argument("conditions", nargs="*", default=list(study.conditions))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    if args.action == "read":
        return read()
    with grader_of(study.recipe(args.conditions[0], args.seeds[0])) as grader:
        for seed in args.seeds:
            for condition in args.conditions:
                folder = study.run(condition, seed, grader)
                if after_run:
                    after_run(folder)
                print(condition, seed, "done", flush=True)
    return None


def measure_end(folder: Path) -> None:
    """Draw many samples of the report tasks from the end checkpoint; end.json holds [task, n, c] of each."""
    out = folder / "end.json"
    if out.exists():
        return
    recipe = Recipe.model_validate(Run.open(folder).recipe)
    policy = load_policy(CheckpointStore(folder / "checkpoints").tags()["end"].path)
    with CodeGrader(recipe.grading.workers, recipe.grading.timeout, isolation=recipe.grading.isolation) as grader:
        result = evaluate(
            policy,
            grader,
            TaskSplits.of(recipe.tasks).report,
            samples=SAMPLES,
            pass_at=PASS_AT,
            temperature=1.0,
            max_new_tokens=recipe.rollout.max_new_tokens,
            batch_rows=recipe.rollout.batch_rows,
            seed=1,
        )
    out.write_text(json.dumps(result.line))


def end_row(condition: str, run: Run) -> dict[str, Any]:
    """The end of a run as a row of a table: entropy, pass@k and distinct solutions over SAMPLES samples a task."""
    line = json.loads((run.path / "end.json").read_text())
    passes = {f"pass_{k}": line["pass_at"][str(k)] for k in PASS_AT}
    return {
        "condition": condition,
        "seed": run.seed,
        "entropy": line["entropy"],
        **passes,
        "distinct": line["distinct"],
    }


def draw_courses(study: Study, file: Path) -> None:
    """pass@1 on the report split (top) and the entropy of the training steps (bottom), a column a condition."""
    figure = Figure(figsize=(2.6 * len(study.conditions), 4.6), layout="constrained")
    axes = figure.subplots(2, len(study.conditions), sharex=True, sharey="row", squeeze=False)
    for column, condition in enumerate(study.conditions):
        for run in study.finished(condition):
            report, steps = Trajectory.from_evals(run.evals("report")), run.steps()
            line = {"color": "#0072b2", "linewidth": 1.1, "alpha": 0.75}
            axes[0, column].plot(report.steps, report.pass_at_1, **line)
            axes[1, column].plot([step["step"] for step in steps], [step["entropy"] for step in steps], **line)
        axes[0, column].set_title(condition, fontsize=10, loc="left")
    axes[0, 0].set_ylabel("pass@1, report split", fontsize=9)
    axes[1, 0].set_ylabel("entropy, nats", fontsize=9)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("optimizer step", fontsize=9)
    FigureCanvasAgg(figure).print_figure(file, dpi=150)


def contrast(rows: Sequence[Mapping[str, Any]], one: str, other: str, field: str) -> dict[str, Any] | None:
    """The paired difference of two conditions over the seeds that both have, with a paired t-test; None below two."""
    of = {(row["condition"], row["seed"]): row[field] for row in rows}
    seeds = [seed for condition, seed in of if condition == one and (other, seed) in of]
    if len(seeds) < 2:
        return None
    a, b = ([of[condition, seed] for seed in seeds] for condition in (one, other))
    found = paired_bootstrap(a, b)
    alike = len(set(found.values)) == 1  # then a t-test has no variance to go by
    return {
        "other": other,
        "field": field,
        "n": len(seeds),
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": 1.0 if alike else float(ttest_rel(a, b).pvalue),
    }


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that share their columns; floats with four significant digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def with_committed(rows: Sequence[dict[str, Any]], path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, and before them those of the table at `path` whose `keys` none of them has: runs no longer at hand."""
    if not path.exists():
        return list(rows)
    measured = {tuple(row[key] for key in keys) for row in rows}
    with path.open(newline="") as file:
        committed = [{name: _number(text) for name, text in line.items()} for line in csv.DictReader(file)]
    return [row for row in committed if tuple(row[key] for key in keys) not in measured] + list(rows)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def cell(values: Sequence[float], digits: int = 2) -> str:
    """`mean [low, high]` over seeds, with the 95 % percentile bootstrap interval."""
    found = bootstrap_mean(values)
    interval = f" [{found.low:.{digits}f}, {found.high:.{digits}f}]" if found.low is not None else ""
    return f"{found.mean:.{digits}f}{interval}"
