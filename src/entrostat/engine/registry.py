"""Trainers by the names that recipes give them: entry points of the group `entrostat.engines`.

A package of yours adds one by naming a function like `EngineMaker` in its own metadata:

    [project.entry-points."entrostat.engines"]
    mine = "my_package.trainer:build"

Without metadata, a recipe names it as `engine: my_package.trainer:build`. What the engine needs beyond the package's
own requirements is an extra of the same name.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol, cast

from entrostat.campaign.engine import Engine, Listener
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, RecipeError
from entrostat.recipe.task_sets import TaskSplits
from entrostat.registry import Registry, UnknownMethodError

GROUP = "entrostat.engines"
_engines: Registry[Engine] = Registry("engine", object, group=GROUP)


class EngineMaker(Protocol):
    """What an entry point names."""

    def __call__(
        self, recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None
    ) -> Engine:
        """The engine for the campaigns of `recipe`. RecipeError: the recipe asks for what it cannot do."""
        ...


def build_engine(recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None) -> Engine:
    """The engine that a recipe names. RecipeError: there is none of that name, what it needs is not installed, or it
    cannot follow the recipe.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if ":" in recipe.engine:
        try:
            return cast(EngineMaker, _engines.find(recipe.engine))(recipe, tasks, grader, listener)
        except UnknownMethodError as error:
            raise RecipeError(f"engine: {error}") from error
    if recipe.engine not in known:
        raise RecipeError(f"engine: got {recipe.engine!r}; installed are {', '.join(sorted(known))}")
    point = known[recipe.engine]
    try:
        maker = cast(EngineMaker, point.load())
    except ImportError as error:
        package = point.dist.name if point.dist else point.value.partition(".")[0]
        raise RecipeError(
            f"engine: {recipe.engine!r} cannot be used here ({error}); pip install '{package}[{recipe.engine}]'"
        ) from error
    return maker(recipe, tasks, grader, listener)
