"""A run that is given more steps than it had: `entrostat train RECIPE --out RUN --set campaign.steps=N`.

The campaign returns to its last resume point before its end and continues from there, so that its trace is that of a
run that had all the steps from the start. Schedules over the run's length stay what they were: they end where they
ended, at `campaign.schedule_steps`, and keep their last value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entrostat.campaign.checkpoints import EXTEND, RESUME, CheckpointStore, Keeper, read_tags
from entrostat.campaign.single import AFTER_ROLL_BACK
from entrostat.recipe import Recipe
from entrostat.runs import Run, RunError

EXTENDABLE = ("embedded", "tabular")  # engines that keep a resume point of a finished campaign


def extended(recipe: Recipe, folder: Path) -> Recipe | None:
    """The recipe with which the run in `folder` continues if `recipe` is its own with more steps; None if it is not.

    It is the run's own recipe where only that names where schedules end. RunError: the run cannot be extended, or the
    recipe has fewer steps than it.
    """
    if not (folder / "run.json").exists():
        return None
    before = Run.open(folder).recipe.get("campaign", {})
    own: dict[str, Any] = recipe.model_dump(mode="json")
    steps, asked = before.get("steps"), recipe.campaign.steps
    schedule = own["campaign"]["schedule_steps"] or before.get("schedule_steps") or steps
    differing = {"steps": steps, "schedule_steps": before.get("schedule_steps")}
    if not isinstance(steps, int) or {**own, "campaign": {**own["campaign"], **differing}} != Run.open(folder).recipe:
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
    if record.recipe == (content := recipe.model_dump(mode="json")):
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
