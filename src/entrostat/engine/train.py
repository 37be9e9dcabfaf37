"""From a recipe and a folder to a finished campaign."""

from __future__ import annotations

import platform
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from entrostat.campaign import Campaign, CampaignOutcome, Checkpoint
from entrostat.campaign.continued import AFTER_ROLL_BACK
from entrostat.campaign.engine import Listener
from entrostat.campaign.kept import model_source
from entrostat.campaign.single import run_open_campaign
from entrostat.engine.policy import EMBEDDED, embedded_folder, refuse_unusable
from entrostat.engine.registry import build_engine
from entrostat.engine.watch import Watched, webhook_of
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, build_campaign_controller
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run
from entrostat.runs.files import folder_digest
from entrostat.runs.ownership import is_digest

REMEMBERED = 200_000  # verdicts; late in a run most completions have been seen before


def train(
    recipe: Recipe, out: str | Path, listener: Listener | None = None, grader: CodeGrader | None = None
) -> CampaignOutcome:
    """Run the campaign of a recipe in the folder `out`, or take it up where it was killed.

    A run whose watchdog rolls back goes on from its peak as a second run, in the folder `after-roll-back` of the first,
    with the steps that are left; the outcome is that of both (see `entrostat.campaign.continued`).
    grader: one that several runs share, with what it remembers; None makes one as the recipe says.
    Before anything is written raises RunError when `out` belongs to another recipe, PolicyError for a folder that lacks
    a part, RecipeError for an engine that is not there or cannot follow the recipe and for a webhook whose environment
    variable holds no address, and grading's IsolationError; later CheckpointError and TrainingError, with what was
    there intact.
    """
    start = starting_point(recipe)
    tasks = TaskSplits.of(recipe.tasks)
    with nullcontext(grader) if grader else grader_of(recipe) as judge:
        return run_open_campaign(open_campaign(recipe, tasks, judge, Path(out), start, listener), start)


def starting_point(recipe: Recipe) -> Checkpoint:
    """The policy that a recipe names. CheckpointError, PolicyError: it is not kept, or it can be told without loading
    that it cannot be used.
    """
    source = model_source(recipe.policy.path)
    refuse_unusable(source, recipe.policy.dtype, recipe.policy.device)
    return Checkpoint(embedded_folder() if source == EMBEDDED else Path(source), step=0)


def grader_of(recipe: Recipe) -> CodeGrader:
    """The grader that a recipe asks for, which remembers verdicts; close it, or use it in a `with`."""
    grading = recipe.grading
    return CodeGrader(grading.workers, grading.timeout, isolation=grading.isolation, memo=REMEMBERED)


def open_campaign(
    recipe: Recipe,
    tasks: TaskSplits,
    grader: CodeGrader,
    place: Path,
    start: Checkpoint,
    listener: Listener | None = None,
) -> Campaign:
    """The campaign of a recipe in the folder `place`, new or taken up: its engine, its controller, under the watchdog
    that the recipe asks for, and its record. `train` and every campaign of a chain are opened here.

    RecipeError, RunError: see `train`.
    """
    engine = build_engine(recipe, tasks, grader, listener)
    webhook_of(recipe.watch, place.name)
    hashes = {**tasks.hashes(), "policy": _origin(start.path)}
    record = Run.create(place, recipe.model_dump(mode="json"), recipe.seed, hashes, versions())
    controller = build_campaign_controller(recipe)
    if recipe.watch is None:
        return Campaign(engine, controller, record)
    watched = Watched(controller, recipe.watch, record, recipe.campaign.steps)

    def again(outcome: CampaignOutcome, steps: int) -> Campaign | None:
        """The steps that are left, under `watch.switch`, where the watchdog has rolled the campaign back."""
        if watched.settings.action != "roll-back" or watched.cause is None:
            return None
        peak = Checkpoint(outcome.handed_over.path, step=0)
        return open_campaign(recipe.after_roll_back(steps), tasks, grader, place / AFTER_ROLL_BACK, peak, listener)

    return Campaign(engine, watched, record, again)


def _origin(start: Path) -> str:
    """What a run's record calls its start: the digest of its content, or its name in a hub."""
    if is_digest(start.name):
        return start.name
    return folder_digest(start) if start.is_dir() else str(start)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a trace depends on."""
    packages = ("entrostat", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
