"""The objects that a recipe describes."""

from __future__ import annotations

from entrostat.campaign import Controller
from entrostat.control import Constant, EntropyController
from entrostat.objective import Objective
from entrostat.recipe.methods import BONUSES, CONTROLLERS, OBJECTIVES, REWEIGHTINGS, STRATEGIES, build
from entrostat.recipe.sections import Recipe


def build_controller(recipe: Recipe) -> EntropyController:
    """The controller that a recipe describes."""
    control = recipe.control
    strategy = build(STRATEGIES, control.strategy) if control.strategy else Constant(build_objective(recipe).rule)
    return EntropyController(
        strategy,
        total_steps=recipe.campaign.steps,
        reweighting=build(REWEIGHTINGS, control.reweighting) if control.reweighting else None,
        bonus=build(BONUSES, control.bonus) if control.bonus else None,
        ema=control.ema,
    )


def build_objective(recipe: Recipe) -> Objective:
    """The objective that a recipe describes."""
    return build(OBJECTIVES, recipe.update.objective)


def build_campaign_controller(recipe: Recipe) -> Controller:
    """What decides over the campaigns of a recipe."""
    return build(CONTROLLERS, recipe.campaign.controller, steps=recipe.campaign.steps)
