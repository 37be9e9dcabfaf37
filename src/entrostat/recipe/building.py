"""The objects that a recipe describes."""

from __future__ import annotations

from entrostat.campaign import EarlyStop, Naive, StopRule
from entrostat.control import Constant, EntropyController
from entrostat.objective import Objective
from entrostat.recipe.methods import BONUSES, OBJECTIVES, REWEIGHTINGS, STRATEGIES, build
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


def build_stop_rule(recipe: Recipe) -> StopRule:
    """The stop rule that a recipe describes."""
    campaign = recipe.campaign
    match campaign.stop:
        case "naive":
            return Naive(steps=campaign.steps)
        case "es-online":
            return EarlyStop(patience=campaign.patience, mode="online", steps=campaign.steps)
