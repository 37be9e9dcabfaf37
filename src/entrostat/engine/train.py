"""From a recipe and a folder to a finished campaign."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from entrostat.campaign import CampaignOutcome, Checkpoint, run_campaign
from entrostat.engine.checkpoint import folder_digest
from entrostat.engine.local import Listener, LocalEngine, TaskSplits
from entrostat.engine.policy import EMBEDDED, embedded_folder, refuse_unusable
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, build_campaign_controller
from entrostat.runs import Run

REMEMBERED = 200_000  # verdicts; late in a run most completions have been seen before


def train(recipe: Recipe, out: Path, listener: Listener | None = None) -> CampaignOutcome:
    """Run the campaign of a recipe in the folder `out`, or take it up where it was killed.

    Before anything is written raises RunError when `out` belongs to another recipe, PolicyError for a folder that lacks
    a part, and grading's IsolationError; later CheckpointError and TrainingError, with what was there intact.
    """
    policy = recipe.policy
    refuse_unusable(policy.path, policy.dtype, policy.device)
    tasks = TaskSplits.of(recipe)
    start = Checkpoint(embedded_folder() if policy.path == EMBEDDED else Path(policy.path), step=0)
    hashes = {**tasks.hashes(), "policy": folder_digest(start.path) if start.path.is_dir() else str(start.path)}
    grading = recipe.grading
    with CodeGrader(grading.workers, grading.timeout, isolation=grading.isolation, memo=REMEMBERED) as grader:
        engine = LocalEngine(recipe, tasks, grader, listener)
        record = Run.create(out, recipe.model_dump(mode="json"), recipe.seed, hashes, versions())
        return run_campaign(engine, build_campaign_controller(recipe), start, record)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a trace depends on."""
    packages = ("entrostat", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
