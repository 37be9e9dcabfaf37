"""The typed configuration of a run, from YAML to the objects it describes."""

from entrostat.recipe.building import build_controller, build_objective, build_stop_rule
from entrostat.recipe.loading import RecipeError, load_recipe, parse_recipe
from entrostat.recipe.sections import Recipe, UpdateRecipe

__all__ = [
    "Recipe",
    "RecipeError",
    "UpdateRecipe",
    "build_controller",
    "build_objective",
    "build_stop_rule",
    "load_recipe",
    "parse_recipe",
]
