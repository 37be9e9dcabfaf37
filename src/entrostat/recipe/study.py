"""The typed configuration of a study: methods x seeds, one chain of campaigns for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from entrostat.recipe.loading import RecipeError, parse_as, parse_recipe, read_mapping
from entrostat.recipe.sections import Positive, Recipe, Section, with_task_seed

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
SEED_STRIDE = 1000  # exceeds the campaigns of any chain, so no two campaigns share a seed


def _unique(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"got {list(seeds)}; give each seed once, from 0")
    return seeds


class StudyRecipe(Section):
    """One study."""

    name: str = Field(min_length=1, pattern=NAME)
    """The study's name; its folder is runs/NAME by default."""
    base: dict[str, Any] = Field(default_factory=dict)
    """The run recipe that all methods share; `base.campaign.steps` is the length of a campaign."""
    methods: dict[Annotated[str, Field(pattern=NAME)], dict[str, Any]] = Field(min_length=1)
    """Each method's changes to the base, as `section.key: value`: its updater (`update.advantage`, `update.kl`) and its
    campaign rule (`campaign.controller`). The other methods are compared with the first."""
    seeds: Annotated[tuple[int, ...], AfterValidator(_unique)] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    """Each method runs one chain per seed; chains with the same seed share their random numbers."""
    campaigns: int = Field(default=10, ge=1, lt=SEED_STRIDE)
    """Campaigns of a chain, each starting from the checkpoint that the previous one handed over."""
    tasks: Literal["fixed", "resampled"] = "fixed"
    """Training tasks: the same for the whole chain, or new ones for each campaign. Held-out tasks do not change."""
    kept: Positive = 1
    """Number of hand-over checkpoints that a finished chain keeps, the newest; weights of all others are deleted."""

    @model_validator(mode="after")
    def _methods_are_recipes(self) -> StudyRecipe:
        for method in self.methods:
            try:
                self.recipe(method, self.seeds[0], 0)
            except RecipeError as error:
                raise ValueError(f"methods.{error}".replace(": ", ".", 1)) from error
        return self

    @cached_property
    def steps(self) -> dict[str, int]:
        """Optimizer steps of a whole campaign, by method."""
        return {method: self.recipe(method, self.seeds[0], 0).campaign.steps for method in self.methods}

    def recipe(self, method: str, seed: int, campaign: int) -> Recipe:
        """The run recipe of one campaign of a chain. Raises RecipeError if the method's changes are not valid."""
        content = {**self.base, "name": method.replace("+", "-")}
        for path, value in {**self.methods[method], "seed": SEED_STRIDE * seed + campaign}.items():
            content = _with(content, path.split("."), value)
        recipe = parse_recipe(with_task_seed(content, seed), origin=method)
        if self.tasks == "resampled":
            tasks = recipe.tasks.model_copy(update={"train_seed": SEED_STRIDE * recipe.tasks.seed + campaign})
            recipe = recipe.model_copy(update={"tasks": tasks})
        return recipe


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyRecipe:
    """Read a study's recipe from a YAML file; `overrides` and RecipeError as in load_recipe."""
    return parse_as(StudyRecipe, read_mapping(path), overrides, origin=str(path))


def _with(content: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """`content` with one nested key changed."""
    if len(keys) == 1:
        return {**content, keys[0]: value}
    inner = content.get(keys[0])
    return {**content, keys[0]: _with(dict(inner) if isinstance(inner, dict) else {}, keys[1:], value)}
