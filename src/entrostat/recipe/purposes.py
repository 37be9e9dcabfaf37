"""Recipes to begin with, by what one wants to do; `reference.commented` explains each of their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from entrostat.recipe.sections import Recipe
from entrostat.recipe.study import StudyRecipe

_SMALL = {"tasks": {"select": 16, "report": 32}, "rollout": {"prompts": 16, "samples": 8}}
_GRPO = {**_SMALL, "update": {"advantage": "grpo", "objective": "clip", "epochs": 2, "learning_rate": 1e-4}}
_MEASURED = {"evaluation": {"every": 5, "samples": 4, "pass_at": [1, 4]}, "campaign": {"steps": 60}}


@dataclass(frozen=True)
class Purpose:
    """What a recipe is for, its settings, and the command that runs it."""

    about: str
    settings: Mapping[str, Any]
    kind: type[BaseModel] = field(default=Recipe)

    @property
    def command(self) -> str:
        """The command that takes this recipe."""
        return "chain" if self.kind is StudyRecipe else "train"


PURPOSES: Mapping[str, Purpose] = {
    "grpo": Purpose(
        "GRPO on the embedded policy, nothing controlled: what the other recipes are compared with.",
        {"name": "grpo", "seed": 0, **_GRPO, **_MEASURED},
    ),
    "hold-entropy": Purpose(
        "GRPO with the entropy steered along a line: weights by polarity, which can raise it as well as lower it.",
        {
            "name": "hold-entropy",
            "seed": 0,
            **_GRPO,
            "control": {
                "reweighting": {
                    "name": "target-weights",
                    "curve": {"points": [[0.0, 0.28], [1.0, 0.1]]},
                    "strength": 0.9,
                }
            },
            **_MEASURED,
        },
    ),
    "flexible-clipping": Purpose(
        "GRPO with clip bounds that depend on the token's probability and move over the run (ID).",
        {"name": "flexible-clipping", "seed": 0, **_GRPO, "control": {"strategy": "id"}, **_MEASURED},
    ),
    "keep-the-peak": Purpose(
        "REINFORCE at a rate at which it falls; a watchdog returns to the peak and continues at a lower rate.",
        {
            "name": "keep-the-peak",
            "seed": 0,
            **_SMALL,
            "update": {"advantage": "reinforce", "objective": "reinforce", "epochs": 4, "learning_rate": 3e-4},
            **_MEASURED,
            "watch": {"action": "roll-back", "severity": "critical", "switch": {"update": {"learning_rate": 1e-4}}},
        },
    ),
    "own-model": Purpose(
        "GRPO on a Hugging Face model with tasks of your own (`entrostat tasks --schema` has their format).",
        {
            "name": "own-model",
            "seed": 0,
            "policy": {"path": "Qwen/Qwen2.5-0.5B-Instruct", "dtype": "float32", "device": "cuda"},
            "tasks": {"family": "jsonl", "data": "tasks.jsonl", "train": 64, "select": 16, "report": 32},
            "rollout": {"prompts": 8, "samples": 8, "max_new_tokens": 512, "batch_rows": 64},
            "update": {
                "advantage": "grpo",
                "objective": "clip",
                "epochs": 2,
                "microbatch_rows": 8,
                "learning_rate": 1e-6,
            },
            "evaluation": {"every": 10, "samples": 4, "pass_at": [1, 4]},
            "campaign": {"steps": 200, "checkpoint_every": 10},
        },
    ),
    "study": Purpose(
        "A study: two methods, two seeds, chains of two campaigns, compared with intervals.",
        {
            "name": "study",
            "base": {**_SMALL, "evaluation": {"every": 2, "samples": 4}, "campaign": {"steps": 10}},
            "methods": {
                "naive": {"update.advantage": "reinforce", "update.objective": "reinforce"},
                "early-stop": {
                    "update.advantage": "reinforce",
                    "update.objective": "reinforce",
                    "campaign.controller": "es-online",
                },
            },
            "seeds": [0, 1],
            "campaigns": 2,
        },
        StudyRecipe,
    ),
}
