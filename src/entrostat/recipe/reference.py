"""Every key of a recipe with its type, range, default and meaning; every method with its equation; commented recipes.

All of it is read from the typed sections and the docstrings: nothing is written down a second time. PURPOSES holds
recipes to begin with, by what one wants to do.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml
from pydantic import BaseModel

from entrostat.errors import EntrostatError
from entrostat.recipe import methods
from entrostat.recipe.loading import StudyRecipe, meant, section_of
from entrostat.recipe.recipe import Recipe
from entrostat.registry import Registry
from entrostat.tasks.sources import task_source

METHODS: Mapping[str, Registry[Any]] = {
    "update.advantage": methods.ADVANTAGES,
    "update.objective": methods.OBJECTIVES,
    "control.strategy": methods.STRATEGIES,
    "control.reweighting": methods.REWEIGHTINGS,
    "control.bonus": methods.BONUSES,
    "control.correction": methods.CORRECTIONS,
    "control.parts": methods.PARTS,
    "campaign.controller": methods.CONTROLLERS,
    "tasks.family": task_source,
}
"""The keys whose value names a method."""

WIDTH = 120
_SENTENCE = re.compile(r"(?<=[^.]\.)\s+(?=[A-Z`])")


class UnknownKeyError(EntrostatError, ValueError):
    """A key or method that does not exist; the message names the nearest ones."""


@dataclass(frozen=True)
class Key:
    """One key of a recipe: its path, what it takes, its default (or `required`), and what it means."""

    path: str
    takes: str
    default: str
    meaning: str


def keys(kind: type[BaseModel] = Recipe) -> list[Key]:
    """Every key of a recipe (or of a StudyRecipe), in the order of its sections."""
    return list(_keys(kind, ""))


def find_keys(name: str) -> list[Key]:
    """The keys of a name: a whole path, a section, or the last part of a path. Raises UnknownKeyError."""
    known = [*keys(), *(key for key in keys(StudyRecipe) if key.path != "name")]
    found = [key for key in known if key.path == name or key.path.startswith(f"{name}.")]
    found = found or [key for key in known if key.path.rpartition(".")[2] == name]
    if not found:
        raise UnknownKeyError(f"{name!r} is not a key of a recipe{meant(name)}; `entrostat recipe` lists all")
    return found


def schema(kind: type[BaseModel] = Recipe) -> dict[str, Any]:
    """A JSON schema of the recipe, which editors check a YAML file with; a method's name may replace its settings."""
    whole = kind.model_json_schema()
    for path, table in METHODS.items() if kind is Recipe else ():
        section, _, field = path.partition(".")
        reference = whole["properties"][section]
        name = (reference.get("$ref") or reference["allOf"][0]["$ref"]).rpartition("/")[2]
        place = whole["$defs"][name]["properties"][field]
        names = {"anyOf": [{"enum": sorted(table)}, {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"}]}
        settings = {"type": "object", "required": ["name"], "properties": {"name": names}}
        choice: dict[str, Any] = {"anyOf": [*names["anyOf"], settings]}
        if place.get("type") == "array":
            place["items"] = choice
        else:
            nullable = any(option.get("type") == "null" for option in place.get("anyOf", ()))
            place.pop("type", None)
            place.pop("additionalProperties", None)
            place["anyOf"] = [*choice["anyOf"], *([{"type": "null"}] if nullable else [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def find_methods(name: str | None = None) -> list[tuple[str, str, Any]]:
    """(key, name, class or function) of every method, of those of a key, or of those of a name.

    Raises UnknownKeyError for a name that is neither.
    """
    everything = [(key, each, _source(table[each])) for key, table in METHODS.items() for each in _own(key, table)]
    if name is None:
        return everything
    found = [entry for entry in everything if name in (entry[0], entry[1])]
    if not found:
        close = difflib.get_close_matches(name, {*METHODS, *(each for _, each, _ in everything)}, 2)
        suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UnknownKeyError(
            f"{name!r} is neither a method nor a key that names one{suggestion} `entrostat methods` lists all"
        )
    return found


def summary(source: Any) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = re.split(r"\n\n|\n {4}", inspect.cleandoc(source.__doc__ or ""), maxsplit=1)[0]
    return _SENTENCE.split(" ".join(paragraph.split()), maxsplit=1)[0]


def commented(settings: Mapping[str, Any], head: str, kind: type[BaseModel] = Recipe) -> str:
    """A recipe in YAML that explains itself: above each key its meaning, with what it takes."""
    about = {key.path: key for key in keys(kind)}
    lines = _comment(head, "")
    lines += _commented(settings, "", about)
    return "\n".join(lines) + "\n"


def _commented(settings: Mapping[str, Any], prefix: str, about: Mapping[str, Key]) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, value in settings.items():
        path = prefix + name
        key = about.get(path)
        if not prefix:
            yield ""
        if key:
            yield from _comment(f"{_SENTENCE.split(key.meaning, maxsplit=1)[0]} [{key.takes}; {key.default}]", indent)
        if isinstance(value, Mapping) and any(each.startswith(f"{path}.") for each in about):
            yield f"{indent}{name}:"
            yield from _commented(value, f"{path}.", about)
        else:
            nested = isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in value.values())
            block = (
                yaml.safe_dump(value, sort_keys=False, width=1000, default_flow_style=None).rstrip() if nested else ""
            )
            yield f"{indent}{name}:" + (
                "\n" + textwrap.indent(block, indent + "  ") if nested else f" {_inline(value)}"
            )


def _comment(text: str, indent: str) -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False)


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()


def _keys(kind: type[BaseModel], prefix: str) -> Iterator[Key]:
    properties = kind.model_json_schema()["properties"]
    for name, info in kind.model_fields.items():
        path = f"{prefix}{name}"
        inner = section_of(info.annotation)
        meaning = " ".join((info.description or (inner.__doc__ if inner else "") or "").split())
        nullable = inner is not None and info.annotation is not inner
        if inner is None or nullable:
            takes = "a section, or null" if inner else _takes(path, properties[name])
            yield Key(path, takes, _default(info), meaning)
        if inner is not None:
            yield from _keys(inner, f"{path}.")


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "default: those of its keys"
    return f"default {_inline(list(value) if isinstance(value, tuple) else value)}"


def _takes(path: str, part: Mapping[str, Any]) -> str:
    """What a key takes, in words, from its JSON schema."""
    if path in METHODS:
        one = f"a method's name, or {{name: ..., its settings}} (`entrostat methods {path}`)"
        one = f"a list, each {one}" if part.get("type") == "array" else one
        return f"{one}, or null" if {"type": "null"} in part.get("anyOf", ()) else one
    return _words(part)


def _words(part: Mapping[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_words(option) for option in part["anyOf"])
    if "enum" in part:
        return " | ".join(_inline(each) for each in part["enum"])
    if "const" in part:
        return _inline(part["const"])
    kind = part.get("type")
    if kind == "array":
        inner = part["prefixItems"][0] if "prefixItems" in part else part.get("items", {})
        count = f"{part['minItems']} " if part.get("minItems") == part.get("maxItems") and "minItems" in part else ""
        plural = re.sub(r"^a (whole )?number", r"\1numbers", _words(inner))
        return f"a list of {count}{plural}"
    named = {"integer": "a whole number", "number": "a number", "boolean": "true | false", "string": "text"}
    return f"{named.get(str(kind), {'null': 'null', 'object': 'a mapping'}.get(str(kind), 'a value'))}{_range(part)}"


def _range(part: Mapping[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {part[name]:g}" for name, sign in signs.items() if name in part]
    return f" {' and '.join(limits)}" if limits else ""


def _own(key: str, table: Registry[Any]) -> list[str]:
    """The methods listed under a key: those of `control.parts` have keys of their own."""
    return [] if key == "control.parts" else list(table)


def _source(method: Callable[..., Any]) -> Any:
    return method.func if isinstance(method, partial) else method


def as_json(found: list[Key]) -> str:
    """The keys as JSON."""
    return json.dumps([vars(key) for key in found], indent=1)


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
            "base": {**_SMALL, "evaluation": {"every": 5, "samples": 4}, "campaign": {"steps": 10}},
            "methods": {
                "naive": {"update.advantage": "reinforce", "update.objective": "reinforce"},
                "early-stop": {
                    "update.advantage": "reinforce",
                    "update.objective": "reinforce",
                    "campaign.controller": {"name": "es-online", "patience": 5},
                },
            },
            "seeds": [0, 1],
            "campaigns": 2,
        },
        StudyRecipe,
    ),
}
