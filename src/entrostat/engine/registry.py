"""Trainers by the names that recipes give them, `engine: embedded`.

A built-in one is a class or function in a file of this package with `@engine("name")`. Another package names one in its
own metadata, in the group `entrostat.engines`,

    [project.entry-points."entrostat.engines"]
    mine = "my_package.trainer:build"

or a recipe names it as `engine: my_package.trainer:build`. What the engine needs beyond the package's own requirements
is an extra of the same name.
"""

from __future__ import annotations

from typing import Protocol, cast

from entrostat.campaign.engine import Engine, Listener
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, RecipeError
from entrostat.recipe.task_sets import TaskSplits
from entrostat.registry import Registry, UnknownMethodError

engine: Registry[Engine] = Registry("engine", object, "entrostat.engine", group="entrostat.engines")


class EngineMaker(Protocol):
    """What a name denotes."""

    def __call__(
        self, recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None
    ) -> Engine:
        """The engine for the campaigns of `recipe`. RecipeError: the recipe asks for what it cannot do."""
        ...


def build_engine(recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None) -> Engine:
    """The engine that a recipe names. RecipeError: there is none of that name, what it needs is not installed, or it
    cannot follow the recipe.
    """
    try:
        maker = cast(EngineMaker, engine.find(recipe.engine))
    except UnknownMethodError as error:
        raise RecipeError(f"engine: {error}") from error
    return maker(recipe, tasks, grader, listener)
