"""Methods by their published names, and their construction from a recipe's settings.

A recipe names a method and sets its arguments: `{name: id, split: 0.4}`, or just `id`. The arguments, their types and
their defaults are read from the class itself.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from entrostat.campaign.stopping import campaign_rule
from entrostat.control import Constant
from entrostat.control.mismatch import Corrected
from entrostat.control.part import Part, bonus, strategy, weighting
from entrostat.objective import ClipBand, Correction
from entrostat.objective.advantages import advantage
from entrostat.objective.clipping import clip_rule
from entrostat.objective.corrections import correction
from entrostat.objective.surrogates import objective
from entrostat.registry import Registry, UnknownMethodError

Method = TypeVar("Method")
Table = Registry[Method]


class WithoutBooleansForNumbers(BaseModel):
    """Settings in which yes, no, on and off, which YAML reads as booleans, do not pass for 1 and 0."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _types(cls.model_fields[str(info.field_name)].annotation)
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(each, bool) for each in given) and (int in kinds or float in kinds) and bool not in kinds:
            raise PydanticCustomError("number_expected", "Input should be a number, not yes or no")
        return value


def _types(annotation: Any) -> list[Any]:
    """A type hint and its parts."""
    return [annotation, *(part for own in get_args(annotation) for part in _types(own))]


class _Settings(WithoutBooleansForNumbers):
    """A method's arguments."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class _BandOwners(Registry[Part]):
    """Strategies, and clip rules, which are used at every step."""

    def __getitem__(self, name: str) -> Callable[..., Part]:
        method: Callable[..., Any] = clip_rule[name] if name in clip_rule else strategy[name]
        return method

    def __iter__(self) -> Iterator[str]:
        yield from clip_rule
        yield from strategy

    def __len__(self) -> int:
        return len(clip_rule) + len(strategy)

    def made(self, name: str, method: Any) -> Part:
        """The part; a clip rule becomes a constant strategy."""
        part = Constant(method) if isinstance(method, ClipBand) else super().made(name, method)
        if not part.owns_band:
            raise ValueError(
                f"{name!r} makes a {type(part).__name__}, which has no `clip`; give a part that owns the band"
            )
        return part


STRATEGIES = _BandOwners("strategy", Part)


class _OtherParts(Registry[Part]):
    """Reweightings, bonuses and corrections, of which a controller may have several."""

    def __getitem__(self, name: str) -> Callable[..., Part]:
        for kind in (weighting, bonus):
            if name in kind:
                return kind[name]
        method: Callable[..., Any] = correction[name]
        return method

    def __iter__(self) -> Iterator[str]:
        yield from weighting
        yield from bonus
        yield from correction

    def __len__(self) -> int:
        return len(weighting) + len(bonus) + len(correction)

    def made(self, name: str, method: Any) -> Part:
        """The part; a correction becomes one."""
        return Corrected(method) if isinstance(method, Correction) else super().made(name, method)


PARTS = _OtherParts("part", Part)
REWEIGHTINGS = weighting
BONUSES = bonus
OBJECTIVES = objective
CORRECTIONS = correction
ADVANTAGES = advantage
CONTROLLERS = campaign_rule

NOT_SETTINGS = ("rewards", "baseline", "surprisals")
"""Arguments of an advantage that the trainer gives."""

GIVEN = ("steps",)
"""Arguments that are not settings of a method, because the recipe has them elsewhere."""


def build(table: Table[Method], choice: Mapping[str, Any], **given: Any) -> Method:
    """The method that a resolved choice names, built with its settings and the arguments `given`.

    Raises ValueError for an unknown name, an unknown or invalid setting, and settings that the method refuses.
    """
    return _built(table, choice, **given)[0]


def build_advantage(choice: str | Mapping[str, Any], baseline: Any = "none") -> Any:
    """The function of rewards that a resolved choice names; baseline: what it subtracts, if it takes one."""
    method, settings = _method_and_settings(ADVANTAGES, _named(choice), NOT_SETTINGS)
    given = _fields(settings)
    if takes_baseline(choice):
        given["baseline"] = baseline
    return method(**given) if inspect.isclass(method) else partial(method, **given)


def takes_baseline(choice: str | Mapping[str, Any]) -> bool:
    """Whether an advantage subtracts the recipe's `update.baseline`."""
    return "baseline" in inspect.signature(ADVANTAGES.find(_named(choice)["name"])).parameters


def takes_surprisals(choice: str | Mapping[str, Any]) -> bool:
    """Whether an advantage reads the completions' surprisals."""
    return "surprisals" in inspect.signature(ADVANTAGES.find(_named(choice)["name"])).parameters


def _advantage(choice: Any) -> str | dict[str, Any]:
    """Only the name if every setting has its default, else all settings."""
    choice = _named(choice)
    if not isinstance(choice, Mapping):
        raise ValueError(f"name: got {choice!r}; give a name, or a mapping with `name`")
    _, settings = _method_and_settings(ADVANTAGES, choice, NOT_SETTINGS)
    name = str(choice["name"])
    return {"name": name, **settings.model_dump(mode="json")} if settings != type(settings)() else name


def resolved(table: Table[Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """The choice with every setting included, as plain data."""
    settings = _built(table, choice)[1].model_dump(mode="json")
    return {"name": choice["name"], **settings}


def _built(table: Table[Method], choice: Mapping[str, Any], **extra: Any) -> tuple[Method, BaseModel]:
    method, settings = _method_and_settings(table, choice, GIVEN)
    return table.made(str(choice["name"]), method(**_fields(settings), **extra)), settings


def _fields(settings: BaseModel) -> dict[str, Any]:
    return {field: getattr(settings, field) for field in type(settings).model_fields}


def _method_and_settings(
    table: Table[Any], choice: Mapping[str, Any], fixed: tuple[str, ...]
) -> tuple[Callable[..., Any], BaseModel]:
    """The method that a choice names, and its settings; `fixed` are arguments that are not settings."""
    if "name" not in choice:
        raise ValueError(f"name: missing in {dict(choice)}; give the method's")
    name = str(choice["name"])
    try:
        method = table.find(name)
    except UnknownMethodError as error:
        raise ValueError(f"name: {error}") from None
    given = {key: value for key, value in choice.items() if key != "name"}
    try:
        settings = _settings_of(method, fixed).model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        field, message = ".".join(str(part) for part in fault["loc"]), fault["msg"]
        raise ValueError(f"{field}: got {fault['input']!r}; {message[0].lower()}{message[1:]}") from None
    if unknown := _unknown(given, settings.model_dump()):
        known = ", ".join(type(settings).model_fields) or "no settings"
        raise ValueError(f"{unknown}: unknown setting; {name!r} takes {known}")
    return method, settings


def _unknown(given: Any, known: Any) -> str | None:
    """The dotted name of the first key of `given`, at any depth, that is not in `known`."""
    if not (isinstance(given, Mapping) and isinstance(known, Mapping)):
        return None
    for key, value in given.items():
        if key not in known:
            return str(key)
        if inner := _unknown(value, known[key]):
            return f"{key}.{inner}"
    return None


@cache
def _settings_of(method: Callable[..., Any], fixed: tuple[str, ...]) -> type[BaseModel]:
    """A model with the method's arguments as its fields."""
    source = method.func if isinstance(method, partial) else method
    fixed = (*fixed, *method.keywords) if isinstance(method, partial) else fixed
    hints = get_type_hints(source.__init__ if inspect.isclass(source) else source)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(source).parameters.items()
        if name not in fixed
    }
    for field in dataclasses.fields(source) if dataclasses.is_dataclass(source) else ():
        if field.init and field.default_factory is not dataclasses.MISSING:
            fields[field.name] = (hints[field.name], Field(default_factory=field.default_factory))
    return create_model("Settings", __base__=_Settings, **fields)


def _named(choice: Any) -> Any:
    """`id` as `{name: id}`."""
    return {"name": choice} if isinstance(choice, str) else choice


def _choice(table: Table[Any]) -> Any:
    return Annotated[dict[str, Any], BeforeValidator(_named), AfterValidator(partial(resolved, table))]


StrategyChoice = _choice(STRATEGIES)
ReweightingChoice = _choice(REWEIGHTINGS)
BonusChoice = _choice(BONUSES)
PartChoice = _choice(PARTS)
CorrectionChoice = _choice(CORRECTIONS)
ObjectiveChoice = _choice(OBJECTIVES)
ControllerChoice = _choice(CONTROLLERS)
AdvantageChoice = Annotated[str | dict[str, Any], BeforeValidator(_advantage)]
