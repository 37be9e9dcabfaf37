"""What the studies share: conditions x seeds as run folders, and the command line.

A study is a script in a folder of its own.
    python studies/NAME/study.py run [CONDITION ...] [--seeds 0 1 2 3 4]    resumes what was killed
    python studies/NAME/study.py collect                  adds finished runs to the study's tables
    python studies/NAME/study.py read                     statistics, README and figures from the tables
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from entrostat.runs import Run, RunError

if TYPE_CHECKING:
    from entrostat.grading import CodeGrader
    from entrostat.recipe import Recipe
    from entrostat.recipe.task_sets import TaskSplits

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
        from entrostat.recipe import load_recipe

        own = self.conditions[condition]
        return load_recipe(own.recipe, [*self.common, *own.overrides, f"seed={seed}"])

    def run(self, condition: str, seed: int, grader: CodeGrader | None = None) -> Path:
        """Train one condition on one seed; returns its folder."""
        from entrostat.engine.train import train

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


class MeasuredStudy(Study):
    """A study that measures each run when it is finished (`main`'s after_run), in row.json: measured runs are skipped,
    and what else a run wrote may be deleted. Tasks of a seed are drawn once for all conditions.
    """

    def run(self, condition: str, seed: int, grader: CodeGrader | None = None) -> Path:
        """See `Study.run`; the CPU time of a run is its seconds.json."""
        from entrostat.campaign.single import run_open_campaign
        from entrostat.engine.train import open_campaign, starting_point

        folder, recipe = self.folder(condition, seed), self.recipe(condition, seed)
        if not (folder / "row.json").exists():
            began = time.process_time()
            start = starting_point(recipe)
            run_open_campaign(open_campaign(recipe, _splits(recipe.tasks), cast(Any, grader), folder, start), start)
            (folder / "seconds.json").write_text(json.dumps(time.process_time() - began))
        return folder

    def measured(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of the measured runs of each condition, by seed."""
        return {
            condition: sorted(
                (json.loads(file.read_text()) for file in self.folder(condition, 0).parent.glob("*/row.json")),
                key=lambda row: int(row["seed"]),
            )
            for condition in self.conditions
        }


@cache
def _splits(tasks: Any) -> TaskSplits:
    """The tasks of a recipe, drawn once."""
    from entrostat.recipe.task_sets import TaskSplits

    return TaskSplits.of(tasks)


def _ended(run: Run) -> bool:
    steps = run.steps()
    return bool(steps) and steps[-1]["step"] >= run.recipe["campaign"]["steps"]


def main(
    study: Study,
    read: Callable[[], None],
    collect: Callable[[], None],
    after_run: Callable[[Path], None] | None = None,
) -> None:
    """The command line of a study; after_run: what is measured on a finished run's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "collect", "read"])
    parser.add_argument("conditions", nargs="*", default=list(study.conditions))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    if args.action == "run":
        _run(study, args.conditions, args.seeds, after_run)
    else:
        {"collect": collect, "read": read}[args.action]()


def _run(
    study: Study, conditions: Sequence[str], seeds: Sequence[int], after_run: Callable[[Path], None] | None
) -> None:
    from entrostat.engine.train import grader_of

    with grader_of(study.recipe(conditions[0], seeds[0])) as grader:
        for seed in seeds:
            for condition in conditions:
                folder = study.run(condition, seed, grader)
                if after_run:
                    after_run(folder)
                print(condition, seed, "done", flush=True)


def measure_end(folder: Path) -> None:
    """Draw many samples of the report tasks from the end checkpoint; end.json holds [task, n, c] of each."""
    from entrostat.campaign.checkpoints import CheckpointStore
    from entrostat.engine.evaluate import evaluate
    from entrostat.engine.policy import load_policy
    from entrostat.engine.rollout import Sampling
    from entrostat.grading import CodeGrader
    from entrostat.recipe import Recipe
    from entrostat.recipe.task_sets import TaskSplits

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
            Sampling(SAMPLES, recipe.rollout.max_new_tokens, 1.0, recipe.rollout.batch_rows),
            1,
            pass_at=PASS_AT,
        )
    out.write_text(json.dumps(result.line))


def end_row(condition: str, run: Run) -> dict[str, Any]:
    """The end of a run as a row of a table: entropy, pass@k and distinct solutions over SAMPLES samples per task."""
    line = json.loads((run.path / "end.json").read_text())
    passes = {f"pass_{k}": line["pass_at"][str(k)] for k in PASS_AT}
    return {
        "condition": condition,
        "seed": run.seed,
        "entropy": line["entropy"],
        **passes,
        "distinct": line["distinct"],
    }
