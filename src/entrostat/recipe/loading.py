"""Recipes and studies from YAML files, with overrides, and the messages for faulty ones."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from entrostat.errors import EntrostatError
from entrostat.recipe.recipe import Recipe, with_task_seed
from entrostat.recipe.sections import Positive, Section

Parsed = TypeVar("Parsed", bound=BaseModel)


class RecipeError(EntrostatError, ValueError):
    """A recipe that cannot be used; the message names the field, the value and the remedy, one line per fault."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file.

    overrides: `section.key=value` settings that win over the file, the value read as YAML.
    Raises RecipeError if the file is missing or not a mapping, or a key is unknown, of the wrong type or out of range.
    """
    return parse_recipe(read_mapping(path), overrides, origin=str(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The content of a YAML file. Raises RecipeError if it is missing or not a mapping."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{file}: no such recipe file; give the path of a YAML recipe") from error
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror}); give the path of a YAML recipe") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not readable as YAML ({error}); save it as UTF-8") from error
    content = _from_yaml(text, str(file))
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: contains a {type(content).__name__}, not a mapping; start with `name: ...`")
    return content


def parse_recipe(content: Mapping[str, Any], overrides: Sequence[str] = (), origin: str = "recipe") -> Recipe:
    """A recipe from plain data; raises RecipeError naming each faulty field, its value and what is allowed."""
    return parse_as(Recipe, content, overrides, origin)


def parse_as(
    kind: type[Parsed], content: Mapping[str, Any], overrides: Sequence[str] = (), origin: str = "recipe"
) -> Parsed:
    """Plain data as a recipe of any kind, such as a study's; raises RecipeError as parse_recipe does."""
    merged = _with_overrides(content, overrides)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise RecipeError("\n".join(_fault(origin, fault) for fault in error.errors())) from error


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a mapping with a repeated key, where YAML's own loader would keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping. Raises yaml.YAMLError for a repeated key; keys merged by `<<` may be overridden, as in YAML."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                continue
            if key in lines:
                raise yaml.YAMLError(f"{key}: given in line {lines[key]} and again in line {line}; keep only one")
            lines[key] = line
        return super().construct_mapping(node, deep)


def _from_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, _EachKeyOnce)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{origin}: not readable as YAML ({' '.join(str(error).split())})") from error


def _with_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise RecipeError(f"override {override!r}: write it as section.key=value")
        keys = path.split(".")
        place: dict[str, Any] = merged
        for key in keys[:-1]:
            inner = place.get(key)
            place[key] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[key]
        place[keys[-1]] = _from_yaml(text, f"override {override!r}")
    return merged


def _fault(origin: str, fault: Any) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{origin}: {_unknown(field)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return "\n".join(f"{origin}: {field}.{line}" if field else f"{origin}: {line}" for line in message.split("\n"))
    if fault["type"] == "missing":
        return f"{origin}: {field}: missing; add it"
    return f"{origin}: {field}: got {shortened(fault['input'])}; {message[0].lower()}{message[1:]}"


def _unknown(field: str) -> str:
    """The message for an unknown key: the nearest name, or that the file is for the other command."""
    if field in ("methods", "base", "campaigns"):
        return f"{field}: belongs to a study; run the file with `entrostat chain`"
    if field in ("policy", "rollout", "update", "control", "campaign", "evaluation"):
        return f"{field}: belongs to a recipe; run the file with `entrostat train`, or put it under `base:`"
    return f"{field}: unknown key{meant(field)}; `entrostat recipe` lists all"


def meant(name: str) -> str:
    """` (did you mean ...?)` with the keys nearest to a name, or nothing."""
    paths = list(key_paths(Recipe))
    ends: dict[str, str] = {path.rpartition(".")[2]: path for path in reversed(paths)}
    last = name.rpartition(".")[2]
    close = [path for path in paths if path.rpartition(".")[2] == last]
    close = close or difflib.get_close_matches(name, paths, 2, cutoff=0.75)
    close = close or [ends[end] for end in difflib.get_close_matches(last, ends, 2, cutoff=0.75)]
    return f" (did you mean {' or '.join(close[:2])}?)" if close else ""


def key_paths(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The path of every key of a recipe, such as `update.epochs`, in the order of its sections."""
    for name, field in kind.model_fields.items():
        inner = section_of(field.annotation)
        if inner is None or field.annotation is not inner:  # a setting, or a section that may be null
            yield f"{prefix}{name}"
        if inner is not None:
            yield from key_paths(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also one that may be null; None for a setting."""
    for each in (annotation, *get_args(annotation)):
        if inspect.isclass(each) and issubclass(each, BaseModel):
            return each
    return None


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
