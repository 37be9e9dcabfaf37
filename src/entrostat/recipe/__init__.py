"""The typed configuration of a run, from YAML to the objects it describes."""

from entrostat.recipe.loading import RecipeError, StudyRecipe, load_recipe, load_study, parse_recipe
from entrostat.recipe.recipe import Recipe, build_campaign_controller, build_controller, build_objective
from entrostat.recipe.sections import UpdateRecipe

__all__ = [
    "Recipe",
    "RecipeError",
    "StudyRecipe",
    "UpdateRecipe",
    "build_campaign_controller",
    "build_controller",
    "build_objective",
    "load_recipe",
    "load_study",
    "parse_recipe",
]
