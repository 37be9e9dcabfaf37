"""Methods by their published names, and how a recipe's settings become one.

A recipe names a method and sets its arguments: `{name: id, split: 0.4}`, or just `id`. The arguments, their types and
their defaults are read off the class itself, so that they are written down once.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from entrostat import control, objective
from entrostat.campaign import Care, CareV1, CareV2, Controller, Crest, EarlyStop, Naive
from entrostat.control import Bonus, Reweighting, Strategy
from entrostat.objective import Objective

Method = TypeVar("Method")
Table = Mapping[str, Callable[..., Method]]


@dataclasses.dataclass(frozen=True)
class Kept:
    """Makes the strategy that keeps one band at every step; its settings are the band's."""

    band: Callable[..., objective.ClipBand]

    def __call__(self, **settings: Any) -> Strategy:
        """The strategy with the band of these settings."""
        return control.Constant(self.band(**settings))


def _sides(upper: float = 0.2, lower: float = 0.2) -> objective.ClipRule:
    """One band at every step and probability: 1 - lower <= r <= 1 + upper. Source: arXiv 1707.06347 (PPO), both .2."""
    return objective.ClipRule.constant(upper=upper, lower=lower)


def _dual_clip(upper: float = 0.2, lower: float = 0.2, cap: float = 3.0) -> objective.DualClip:
    """`constant`, and for A < 0 no gradient above the ratio `cap` either: max(min(r A, clip(r) A), cap A).

    Source: arXiv 1912.09729.
    """
    return objective.DualClip(_sides(upper, lower), cap)


def _free_region(
    region: Literal["E1", "E2", "E3", "E4"], upper: float = 0.2, lower: float = 0.2
) -> objective.FreeRegion:
    """`constant`, except that the tokens of one region are never clipped: q > .7 is likely (E1, E3), q < .3 rare.

    Source: the region experiment of arXiv 2602.09782.
    """
    return objective.FreeRegion(region, _sides(upper, lower))


def _clip_higher() -> objective.ClipRule:
    """The constant band .8 <= r <= 1.28: rare rewarded tokens may rise further. Source: arXiv 2503.14476 (DAPO)."""
    return objective.CLIP_HIGHER


def _clip_lower() -> objective.ClipRule:
    """The constant band .9 <= r <= 1.2: the lower side tighter, meant to raise the entropy.

    Source: arXiv 2509.26114; its .1 is our choice. Ours: +.007 [-.004, .017] nats against GRPO, n = 5
    (studies/entropy-strategies).
    """
    return objective.CLIP_LOWER


STRATEGIES: Table[Strategy] = {
    "constant": Kept(_sides),
    "clip-higher": Kept(_clip_higher),
    "clip-lower": Kept(_clip_lower),
    "linear": Kept(objective.ClipRule),
    "dual-clip": Kept(_dual_clip),
    "dppo": Kept(objective.DppoClip),
    "dcpo": Kept(objective.DcpoClip),
    "abc": Kept(objective.AbcClip),
    "free-region": Kept(_free_region),
    "id": control.IncreaseThenDecrease,
    "did": control.DecreaseIncreaseDecrease,
    "od": control.OscillatoryDecay,
    "piecewise": control.Piecewise,
    "target-entropy": control.TargetEntropy,
}

REWEIGHTINGS: Table[Reweighting] = {
    "polarity-aware": control.PolarityAware,
    "fixed": control.FixedWeights,
    "target-weights": control.TargetWeights,
    "80/20": control.HighEntropyTokens,
    "clip-cov": control.ClipCov,
    "skip-region": control.SkipRegion,
    "entropy-outliers": control.EntropyOutliers,
    "opefo": control.Opefo,
    "stare": control.Stare,
    "steer": control.Steer,
    "entropic": control.EntroPic,
    "entrocraft": control.Entrocraft,
    "gepo": control.Gepo,
}

BONUSES: Table[Bonus] = {"constant": control.ConstantBonus, "adaptive": control.AdaptiveBonus}

OBJECTIVES: Table[Objective] = {
    "clip": objective.Clip,
    "clip-undetached": objective.ClipUndetached,
    "reinforce": objective.Reinforce,
    "cispo": objective.Cispo,
    "gspo": objective.Gspo,
    "gmpo": objective.Gmpo,
    "sapo": objective.Sapo,
    "ce-gppo": objective.CeGppo,
    "nsr": objective.Nsr,
    "bapo": objective.Bapo,
}


CONTROLLERS: Table[Controller] = {
    "naive": Naive,
    "es-online": partial(EarlyStop, mode="online"),
    "es-budget": partial(EarlyStop, mode="budget"),
    "care-v1": CareV1,
    "care-v2": CareV2,
    "care": Care,
    "care-memory-only": partial(Care, gate=False),
    "care-gate-only": partial(Care, memory=False),
    "crest": Crest,
}

GIVEN = ("steps",)
"""Arguments that are no settings of a choice: the recipe has them elsewhere."""


def build(table: Table[Method], choice: Mapping[str, Any], **given: Any) -> Method:
    """The method that a resolved choice names, with its settings and the arguments `given`.

    Raises ValueError for an unknown name, an unknown or faulty setting, and settings that the method refuses.
    """
    return _built(table, choice, **given)[0]


def resolved(table: Table[Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """The choice with every setting written out, as plain data."""
    return {"name": choice["name"], **_built(table, choice)[1].model_dump(mode="json")}


def _built(table: Table[Method], choice: Mapping[str, Any], **extra: Any) -> tuple[Method, BaseModel]:
    name = str(choice.get("name"))
    if name not in table:
        raise ValueError(f"name is {name!r}; choose one of {', '.join(table)}")
    method = table[name]
    given = {key: value for key, value in choice.items() if key != "name"}
    try:
        settings = _settings_of(method).model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        field, message = ".".join(str(part) for part in fault["loc"]), fault["msg"]
        raise ValueError(f"{field}: got {fault['input']!r}; {message[0].lower()}{message[1:]}") from None
    if unknown := _unknown(given, settings.model_dump()):
        known = ", ".join(type(settings).model_fields) or "no settings"
        raise ValueError(f"{unknown}: unknown setting; {name!r} takes {known}")
    own = {field: getattr(settings, field) for field in type(settings).model_fields}
    return method(**own, **extra), settings


def _unknown(given: Any, known: Any) -> str | None:
    """The dotted name of the first key of `given`, at any depth, that `known` has not."""
    if not (isinstance(given, Mapping) and isinstance(known, Mapping)):
        return None
    for key, value in given.items():
        if key not in known:
            return str(key)
        if inner := _unknown(value, known[key]):
            return f"{key}.{inner}"
    return None


@cache
def _settings_of(method: Callable[..., Any]) -> type[BaseModel]:
    """A model with the method's arguments as its fields."""
    source = method.band if isinstance(method, Kept) else method.func if isinstance(method, partial) else method
    fixed = (*GIVEN, *method.keywords) if isinstance(method, partial) else GIVEN
    hints = get_type_hints(source.__init__ if inspect.isclass(source) else source)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(source).parameters.items()
        if name not in fixed
    }
    for field in dataclasses.fields(source) if dataclasses.is_dataclass(source) else ():
        if field.init and field.default_factory is not dataclasses.MISSING:
            fields[field.name] = (hints[field.name], Field(default_factory=field.default_factory))
    return create_model("Settings", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)


def _named(choice: Any) -> Any:
    """`id` as `{name: id}`."""
    return {"name": choice} if isinstance(choice, str) else choice


def _choice(table: Table[Any]) -> Any:
    return Annotated[dict[str, Any], BeforeValidator(_named), AfterValidator(partial(resolved, table))]


StrategyChoice = _choice(STRATEGIES)
ReweightingChoice = _choice(REWEIGHTINGS)
BonusChoice = _choice(BONUSES)
ObjectiveChoice = _choice(OBJECTIVES)
ControllerChoice = _choice(CONTROLLERS)
