"""The resources that a chain will need, before it is run: steps, completions, tokens and memory."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from entrostat.campaign.kept import model_source
from entrostat.engine.policy import DTYPES, EMBEDDED, PolicyError, embedded_folder
from entrostat.recipe import StudyRecipe


def estimate(study: StudyRecipe, method: str) -> dict[str, Any]:
    """Upper bounds for one chain of a method: no campaign stops early, every completion has the full length.

    memory: weights, gradients and AdamW's two moments in the policy's dtype, of a model whose folder exists or whose
    name has its size (as in Qwen2.5-3B); "?" for others. Activations and the key-value cache are not included.
    """
    recipe = study.recipe(method, study.seeds[0], 0)
    steps = recipe.campaign.steps * study.campaigns
    batches = -(-recipe.campaign.steps // recipe.update.steps_per_batch) * study.campaigns
    training = batches * recipe.rollout.prompts * recipe.rollout.samples
    every = recipe.evaluation.every
    per_campaign = 1 + recipe.campaign.steps // every if every else 4
    split = {"select": recipe.tasks.select * per_campaign, "report": recipe.tasks.report * per_campaign}
    if recipe.evaluation.report == "peak":
        split["report"] = recipe.tasks.report * 3
    evaluation = sum(split.values()) * recipe.evaluation.samples * study.campaigns
    parameters = parameter_count(recipe.policy.path)
    width = DTYPES[recipe.policy.dtype].itemsize
    gigabytes = None if parameters is None else 4 * width * parameters / 2**30
    return {
        "method": method,
        "campaigns": study.campaigns,
        "steps": steps,
        "training completions": training,
        "evaluation completions": evaluation,
        "tokens": (training + evaluation) * recipe.rollout.max_new_tokens,
        "memory": "?" if gigabytes is None else f"{gigabytes:.2f} GiB",
    }


def parameter_count(path: str) -> int | None:
    """Number of weights of a model, from its folder's safetensors headers or its name (Qwen2.5-7B, gemma-3-270m).

    PolicyError: a file is cut off or not a safetensors file.
    """
    folder = embedded_folder() if path == EMBEDDED else Path(model_source(path))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if files:
        return sum(_elements(file) for file in files)
    for part in path.replace("_", "-").split("-"):
        unit = {"b": 10**9, "m": 10**6}.get(part[-1:].lower())
        if unit and part[:-1].replace(".", "", 1).isdigit():
            return round(float(part[:-1]) * unit)
    return None


def _elements(file: Path) -> int:
    try:
        with safe_open(file, "numpy") as tensors:
            return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"policy.path: {file} cannot be read ({error}); give a whole checkpoint") from error
