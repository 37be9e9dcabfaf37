"""From a recipe and a folder to a finished campaign; and a finished run that is given more steps.

A run that is extended (`--set campaign.steps=N`) returns to its last resume point before its end and continues from
there, so that its trace is that of a run that had all the steps from the start. Schedules over the run's length stay
what they were: they end where they ended, at `campaign.schedule_steps`, and keep their last value.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from entrostat.campaign import Campaign, CampaignOutcome, Checkpoint
from entrostat.campaign.checkpoints import EXTEND, RESUME, CheckpointStore, Keeper, model_source, read_tags
from entrostat.campaign.engine import Listener
from entrostat.campaign.single import AFTER_ROLL_BACK, run_open_campaign
from entrostat.diagnosis.watchdog import RESTART, ROLL_BACK
from entrostat.engine.local import LocalEngine
from entrostat.engine.policy import EMBEDDED, embedded_folder, refuse_unusable
from entrostat.engine.registry import build_engine
from entrostat.engine.traces import Restart
from entrostat.engine.watchdog import Watched, webhook_of
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, build_campaign_controller
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run, RunError
from entrostat.runs.files import folder_digest
from entrostat.runs.ownership import is_digest

TABULAR = "tabular"  # the engine that has a policy of its own kind and grades without running code
REMEMBERED = 200_000  # verdicts; late in a run most completions have been seen before


def train(
    recipe: Recipe, out: str | Path, listener: Listener | None = None, grader: CodeGrader | None = None
) -> CampaignOutcome:
    """Run the campaign of a recipe in the folder `out`, or resume it.

    A run whose watchdog rolls back continues from its peak as a second run, in the folder `after-roll-back` of the
    first, with the remaining steps, and one that restarts from traces does from its start; the outcome is that of both
    (see `entrostat.campaign.single`).
    A run that has used all its steps continues if the recipe is its own with more of them (see
    `extended`).
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
    restart: Restart | None = None,
) -> Campaign:
    """The campaign of a recipe in the folder `place`, new or resumed: its engine, its campaign rule, under the recipe's
    watchdog, and its record. `train` and every campaign of a chain are opened here.

    restart: the traces with which it begins, if it does. RecipeError, RunError: see `train`.
    """
    trainer = build_engine(recipe, tasks, grader, listener)
    if restart and isinstance(trainer, LocalEngine):
        trainer.restart = restart
    webhook_of(recipe.watch, place.name)
    hashes = {**tasks.hashes(), "policy": _origin(start.path)}
    content = recipe.model_dump(mode="json")
    record = Run.create(place, content, recipe.seed, hashes, versions(), read=up_to_date)
    controller = build_campaign_controller(recipe)
    if recipe.watch is None:
        return Campaign(trainer, controller, record)
    watched = Watched(controller, recipe.watch, record, recipe.campaign.steps)

    def again(outcome: CampaignOutcome, steps: int) -> Campaign | None:
        """The remaining steps, under `watch.switch`, if the watchdog has rolled the campaign back or restarts it."""
        settings, own = watched.settings, None
        if settings.action not in (ROLL_BACK, RESTART) or watched.cause is None:
            return None
        if restarting := settings.restarting:
            own = Restart.of(restarting, outcome.trace.end.path, recipe.seed)
            record.note_decision({"step": outcome.trace.end.step, "kind": RESTART, "cause": str(own)})
        first = Checkpoint(outcome.handed_over.path, step=0)
        rest, folder = recipe.after_roll_back(steps), place / AFTER_ROLL_BACK
        return open_campaign(rest, tasks, grader, folder, first, listener, own)

    return Campaign(trainer, watched, record, again)


def _origin(start: Path) -> str:
    """What a run's record calls its start: the digest of its content, or its name on a hub."""
    if is_digest(start.name):
        return start.name
    return folder_digest(start) if start.is_dir() else str(start)


def up_to_date(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run folder's recipe, in which keys that came later have their defaults and renamed ones their new names; as it
    stands there if this version refuses it.
    """
    try:
        return Recipe.model_validate(recorded).model_dump(mode="json")
    except ValueError:
        return recorded


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


EXTENDABLE = ("embedded", "tabular")  # engines that keep a resume point of a finished campaign


def extended(recipe: Recipe, folder: Path) -> Recipe | None:
    """The recipe with which the run in `folder` continues if `recipe` is its own with more steps; None if it is not.

    It is the run's own recipe where only that names where schedules end. RunError: the run cannot be extended, or the
    recipe has fewer steps than it.
    """
    if not (folder / "run.json").exists():
        return None
    recorded = up_to_date(Run.open(folder).recipe)
    before = recorded.get("campaign", {})
    own: dict[str, Any] = recipe.model_dump(mode="json")
    steps, asked = before.get("steps"), recipe.campaign.steps
    schedule = own["campaign"]["schedule_steps"] or before.get("schedule_steps") or steps
    differing = {"steps": steps, "schedule_steps": before.get("schedule_steps")}
    if not isinstance(steps, int) or {**own, "campaign": {**own["campaign"], **differing}} != recorded:
        return None
    if asked < steps:
        raise RunError(
            f"{folder}: has {steps} steps, and campaign.steps is {asked}; a run cannot be made shorter: give at least "
            f"{steps}, or choose another folder with --out"
        )
    if asked == steps:
        schedule = before.get("schedule_steps")
    else:
        _refuse_what_cannot_be_extended(folder, steps, recipe.engine)
    return Recipe.model_validate({**own, "campaign": {**own["campaign"], "schedule_steps": schedule}})


def reopen(folder: Path, recipe: Recipe) -> None:
    """Make a finished run one that is under way and has `recipe`. RunError: another process writes it."""
    record = Run.open(folder)
    if up_to_date(record.recipe) == (content := recipe.model_dump(mode="json")):
        return
    with record.sole_writer():
        Keeper(CheckpointStore(record.checkpoints_dir)).reopen()
        record.change_recipe(content)


def extension_note(recipe: Recipe, folder: Path) -> str | None:
    """What it means to continue the run in `folder` with `recipe`; None if it is not extended. RunError: see
    `extended`."""
    longer = extended(recipe, folder)
    if longer is None or (steps := Run.open(folder).recipe["campaign"]["steps"]) == longer.campaign.steps:
        return None
    tags = read_tags(folder / "checkpoints")
    point = (tags.get(EXTEND) or tags[RESUME]).step
    ended = longer.campaign.schedule_steps
    control = longer.control
    schedules = (
        f"Schedules over the run's length ended at step {ended} and keep their last value; start a new run for "
        f"schedules over {longer.campaign.steps} steps"
        if control.strategy or control.reweighting or control.bonus or control.parts
        else "Nothing in it depends on the run's length"
    )
    return f"{folder}: extended from {steps} to {longer.campaign.steps} steps, from step {point} on. {schedules}"


def _refuse_what_cannot_be_extended(folder: Path, steps: int, engine: str) -> None:
    tags = read_tags(folder / "checkpoints")
    why = None
    if engine not in EXTENDABLE:
        why = f"engine {engine} keeps no resume point of a finished campaign"
    elif (folder / AFTER_ROLL_BACK / "run.json").exists():
        why = "it was rolled back, and its remaining steps are a run of their own"
    elif "end" in tags and tags["end"].step < steps:
        why = f"its rule or watchdog stopped it at step {tags['end'].step} of {steps}, and would again"
    elif EXTEND not in tags and RESUME not in tags:
        why = "no resume point of it is kept"
    if why:
        raise RunError(
            f"{folder}: cannot be extended beyond {steps} steps: {why}; start a new run from its weights with "
            f"--set policy.path={folder}@end and another --out"
        )
