"""The objects that a recipe describes."""

from __future__ import annotations

from typing import Any

from entrostat.campaign import Controller
from entrostat.control import Constant, DualClipped, EntropyController
from entrostat.objective import Objective
from entrostat.recipe.methods import (
    BONUSES,
    CONTROLLERS,
    CORRECTIONS,
    OBJECTIVES,
    PARTS,
    REWEIGHTINGS,
    STRATEGIES,
    build,
)
from entrostat.recipe.sections import Recipe


def build_controller(recipe: Recipe) -> EntropyController:
    """The controller that a recipe describes."""
    control = recipe.control
    owner = build(STRATEGIES, control.strategy) if control.strategy else Constant(build_objective(recipe).rule)
    chosen: list[tuple[Any, dict[str, Any] | None]] = [
        (CORRECTIONS, control.correction),
        (REWEIGHTINGS, control.reweighting),
        (BONUSES, control.bonus),
        *((PARTS, part) for part in control.parts),
    ]
    return EntropyController(
        owner if control.dual_clip is None else DualClipped(owner, control.dual_clip),
        *(build(table, choice) for table, choice in chosen if choice),
        total_steps=recipe.campaign.schedule_steps or recipe.campaign.steps,
        ema=control.ema,
    )


def build_objective(recipe: Recipe) -> Objective:
    """The objective that a recipe describes."""
    return build(OBJECTIVES, recipe.update.objective)


def build_campaign_controller(recipe: Recipe) -> Controller:
    """The campaign rule that a recipe describes."""
    return build(CONTROLLERS, recipe.campaign.controller, steps=recipe.campaign.steps)
