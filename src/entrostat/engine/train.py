"""From a recipe and a folder to a finished campaign."""

from __future__ import annotations

import platform
import warnings
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from entrostat.campaign import Campaign, CampaignOutcome, Checkpoint
from entrostat.campaign.checkpoints import model_source
from entrostat.campaign.engine import Listener
from entrostat.campaign.single import AFTER_ROLL_BACK, run_open_campaign
from entrostat.engine.extension import extended, reopen
from entrostat.engine.policy import EMBEDDED, embedded_folder, refuse_unusable
from entrostat.engine.registry import build_engine
from entrostat.engine.watchdog import Watched, webhook_of
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, build_campaign_controller
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run
from entrostat.runs.files import folder_digest
from entrostat.runs.ownership import is_digest

TABULAR = "tabular"  # the engine that has a policy of its own kind and grades without running code
REMEMBERED = 200_000  # verdicts; late in a run most completions have been seen before


def train(
    recipe: Recipe, out: str | Path, listener: Listener | None = None, grader: CodeGrader | None = None
) -> CampaignOutcome:
    """Run the campaign of a recipe in the folder `out`, or resume it.

    A run whose watchdog rolls back continues from its peak as a second run, in the folder `after-roll-back` of the
    first, with the remaining steps; the outcome is that of both (see `entrostat.campaign.single`).
    A run that has used all its steps continues if the recipe is its own with more of them (see
    `entrostat.engine.extension`).
    grader: one that several runs share, with the verdicts that it remembers; by default one as the recipe says.
    Before anything is written raises RunError if `out` belongs to another recipe, PolicyError for an incomplete model
    folder, RecipeError for an engine that is not installed or cannot follow the recipe and for a webhook whose
    environment variable holds no address, and grading's IsolationError; later CheckpointError and TrainingError, with
    earlier files intact.
    """
    start = starting_point(recipe)
    if longer := extended(recipe, Path(out)):
        recipe = longer
        reopen(Path(out), recipe)
    tasks = TaskSplits.of(recipe.tasks)
    with nullcontext(grader) if grader else judging(recipe) as judge:
        return run_open_campaign(open_campaign(recipe, tasks, judge, Path(out), start, listener), start)


def starting_point(recipe: Recipe) -> Checkpoint:
    """The policy that a recipe names. CheckpointError, PolicyError: it is not kept, or it cannot be used, as can be
    seen without loading it.
    """
    source = model_source(recipe.policy.path)
    if recipe.engine == TABULAR:
        return Checkpoint(Path(source), step=0)
    refuse_unusable(source, recipe.policy.dtype, recipe.policy.device)
    return Checkpoint(embedded_folder() if source == EMBEDDED else Path(source), step=0)


def judging(recipe: Recipe) -> AbstractContextManager[Any]:
    """The grader that a recipe needs, for a `with` statement; None for engine tabular, which runs no code."""
    return nullcontext() if recipe.engine == TABULAR else grader_of(recipe)


def grader_of(recipe: Recipe) -> CodeGrader:
    """The grader that a recipe describes, which remembers verdicts; close it, or use it in a `with` statement."""
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
    """The campaign of a recipe in the folder `place`, new or resumed: its engine, its campaign rule, under the recipe's
    watchdog, and its record. `train` and every campaign of a chain are opened here.

    RecipeError, RunError: see `train`.
    """
    trainer = build_engine(recipe, tasks, grader, listener)
    webhook_of(recipe.watch, place.name)
    hashes = {**tasks.hashes(), "policy": _origin(start.path)}
    record = Run.create(place, recipe.model_dump(mode="json"), recipe.seed, hashes, versions())
    controller = build_campaign_controller(recipe)
    if recipe.watch is None:
        return Campaign(trainer, controller, record)
    watched = Watched(controller, recipe.watch, record, recipe.campaign.steps)

    def again(outcome: CampaignOutcome, steps: int) -> Campaign | None:
        """The remaining steps, under `watch.switch`, if the watchdog has rolled the campaign back."""
        if watched.settings.action != "roll-back" or watched.cause is None:
            return None
        peak = Checkpoint(outcome.handed_over.path, step=0)
        return open_campaign(recipe.after_roll_back(steps), tasks, grader, place / AFTER_ROLL_BACK, peak, listener)

    return Campaign(trainer, watched, record, again)


def _origin(start: Path) -> str:
    """What a run's record calls its start: the digest of its content, or its name on a hub."""
    if is_digest(start.name):
        return start.name
    return folder_digest(start) if start.is_dir() else str(start)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a trace depends on."""
    packages = ("entrostat", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def quieten_libraries() -> None:
    """Keep the progress bars, log lines and deprecation notices of transformers and TRL off this process's screen."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\b")
