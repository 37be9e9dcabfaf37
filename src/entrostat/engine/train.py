"""From a recipe and a folder to a finished campaign."""

from __future__ import annotations

import platform
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from entrostat.campaign import CampaignOutcome, Checkpoint, run_campaign
from entrostat.campaign.engine import Listener
from entrostat.diagnose import Finding
from entrostat.engine.policy import EMBEDDED, embedded_folder, refuse_unusable
from entrostat.engine.registry import build_engine
from entrostat.engine.watch import Watched, webhook_of
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, build_campaign_controller
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run
from entrostat.runs.files import folder_digest

REMEMBERED = 200_000  # verdicts; late in a run most completions have been seen before
AFTER_ROLL_BACK = "after-roll-back"  # the folder, within a run's own, of the run that goes on from its peak


def train(
    recipe: Recipe, out: Path, listener: Listener | None = None, grader: CodeGrader | None = None
) -> CampaignOutcome:
    """Run the campaign of a recipe in the folder `out`, or take it up where it was killed.

    A run whose watchdog rolls back goes on from its peak as a second run, in the folder `after-roll-back` of the first,
    with the steps that are left; its outcome is then the one returned.
    grader: one that several runs share, with what it remembers; None makes one as the recipe says.
    Before anything is written raises RunError when `out` belongs to another recipe, PolicyError for a folder that lacks
    a part, RecipeError for an engine that is not there or cannot follow the recipe and for a webhook whose environment
    variable holds no address, and grading's IsolationError; later CheckpointError and TrainingError, with what was
    there intact.
    """
    policy = recipe.policy
    refuse_unusable(policy.path, policy.dtype, policy.device)
    webhook_of(recipe.watch, out.name)
    tasks = TaskSplits.of(recipe.tasks)
    start = Checkpoint(embedded_folder() if policy.path == EMBEDDED else Path(policy.path), step=0)
    with nullcontext(grader) if grader else grader_of(recipe) as judge:
        outcome, record, ended_by = _campaign(recipe, start, tasks, judge, out, listener)
        left = recipe.campaign.steps - outcome.trace.steps_used
        if not (recipe.watch and recipe.watch.action == "roll-back" and ended_by and left > 0):
            return outcome
        cause = f"{left} steps are left; they go on from step {outcome.handed_over.step} in {AFTER_ROLL_BACK}"
        record.note_decision({"step": outcome.trace.steps_used, "kind": "switch", "cause": cause})
        again = Checkpoint(outcome.handed_over.path, step=0)
        return _campaign(recipe.after_roll_back(left), again, tasks, judge, out / AFTER_ROLL_BACK, listener)[0]


def grader_of(recipe: Recipe) -> CodeGrader:
    """The grader that a recipe asks for, which remembers verdicts; close it, or use it in a `with`."""
    grading = recipe.grading
    return CodeGrader(grading.workers, grading.timeout, isolation=grading.isolation, memo=REMEMBERED)


def _campaign(
    recipe: Recipe, start: Checkpoint, tasks: TaskSplits, grader: CodeGrader, out: Path, listener: Listener | None
) -> tuple[CampaignOutcome, Run, Finding | None]:
    """The campaign's outcome, its record, and the finding that ended it, if one did."""
    origin = folder_digest(start.path) if start.path.is_dir() else str(start.path)
    hashes = {**tasks.hashes(), "policy": origin}
    engine = build_engine(recipe, tasks, grader, listener)
    record = Run.create(out, recipe.model_dump(mode="json"), recipe.seed, hashes, versions())
    controller = build_campaign_controller(recipe)
    if recipe.watch is None:
        return run_campaign(engine, controller, start, record), record, None
    watched = Watched(controller, recipe.watch, record, recipe.campaign.steps)
    return run_campaign(engine, watched, start, record), record, watched.cause


def versions() -> dict[str, str]:
    """Of Python and of the packages that a trace depends on."""
    packages = ("entrostat", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
