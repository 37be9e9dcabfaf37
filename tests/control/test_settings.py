"""Settings of parts: those that are left out, and the least and greatest that are accepted."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re

import pytest
import torch
from parts import batch_of, measured, weights_of
from values import dataclasses_of

from entrostat import control
from entrostat.control import (
    AdaptiveBonus,
    ClipCov,
    Constant,
    ConstantBonus,
    Curve,
    DecreaseIncreaseDecrease,
    DualClipped,
    Entrocraft,
    EntroPic,
    EntropicWeights,
    EntropyController,
    EntropyOutliers,
    FixedWeights,
    FlowCalibration,
    Gepo,
    HighEntropyTokens,
    IncreaseThenDecrease,
    Opefo,
    OscillatoryDecay,
    Piecewise,
    PolarityAware,
    SkipRegion,
    Stare,
    Steer,
    TargetEntropy,
    TargetWeights,
    token_sums,
)
from entrostat.control.following import CurveFollower
from entrostat.control.part import Part, Resumable, bonus, strategy, weighting
from entrostat.control.strategies import Schedule, Stage, Strategy
from entrostat.control.thermostat import Thermostat
from entrostat.objective import ClipRule, LinearThreshold, policy_loss
from entrostat.tokens import token_stats

STANDARD = ClipRule.constant(0.2)
PHASES = {"upper": LinearThreshold(-0.25, 0.5), "lower": LinearThreshold(-0.13, 0.3), "eps_std": 0.2}
DEFAULTS = {
    IncreaseThenDecrease: {**PHASES, "split": 0.5},
    DecreaseIncreaseDecrease: {**PHASES, "split": 0.5},
    OscillatoryDecay: {**PHASES, "h_init": None, "h_min_ratio": 0.2},
    DualClipped: {"cap": 3.0},
    TargetEntropy: {
        "raising": ClipRule(LinearThreshold(-0.1, 0.1), LinearThreshold(0.3, 0.01)),
        "neutral": STANDARD,
        "lowering": ClipRule(LinearThreshold(0.5, 0.0), LinearThreshold(0.0, 0.5)),
        "memory": 30.0,
        "reach": 5,
    },
    TargetWeights: {"strength": 0.9, "punished": 1.0, "by": "polarity", "reach": 5, "most_change": 0.25},
    Thermostat: {"reach": 5, "most_change": 0.25},
    CurveFollower: {"memory": 30.0, "reach": 5},
    HighEntropyTokens: {"share": 0.2},
    ClipCov: {"share": 2e-4, "low": 1.0, "high": 5.0},
    EntropyOutliers: {"limit": 2.5, "centred": False},
    SkipRegion: {"convention": "surprisal"},
    Opefo: {"bound": 1.0},
    Stare: {
        "share": 0.1,
        "weight": 1.1,
        "target": 0.3,
        "adaptive": False,
        "step": 0.01,
        "most": 1.5,
        "variant": "O1",
        "punished": 0.9,
        "least": 0.5,
    },
    Steer: {"form": "linear", "low": 0.8, "high": 1.2, "least": 0.02},
    Gepo: {"rewarded": 0.5, "punished": 0.2, "below": 0.2, "above": 0.3, "rate": 0.01},
    EntroPic: {"kp": 1.0, "ki": 0.01, "likely": 0.95, "bound": 1.0},
    EntropicWeights: {"kp": 1.0, "ki": 0.01, "bound": 0.9},
    FixedWeights: {"expanding": 1.0, "contracting": 1.0},
    PolarityAware: {
        "signal": "level",
        "strength": 0.5,
        "scale": 0.2,
        "reference": None,
        "lag": 5,
        "graded": False,
        "rewarded_only": False,
    },
    AdaptiveBonus: {"delta": 0.005, "start": 0.0, "least": 0.0, "most": 1.0},
    FlowCalibration: {"memory": 50.0, "features": 1},
    EntropyController: {"total_steps": None, "ema": 0.0},
}


@pytest.mark.parametrize("part", DEFAULTS, ids=lambda part: part.__name__)
def test_a_setting_that_is_left_out_keeps_its_value(part):
    given = {name: each.default for name, each in inspect.signature(part).parameters.items()}
    assert {name: given[name] for name in DEFAULTS[part]} == DEFAULTS[part]


CURVE = Curve.constant(0.5)
NO = math.nan
RANGES = [  # a method, what it needs besides, and per setting the values that are accepted and refused
    (HighEntropyTokens, {}, {"share": ([1e-9, 1.0], [0.0, 1.001, NO])}),
    (ClipCov, {}, {"share": ([1e-9, 1.0], [0.0, 1.001, NO]), "low": ([4.99], [5.0]), "high": ([1.01], [1.0])}),
    (EntropyOutliers, {}, {"limit": ([1e-9], [0.0, -1.0, NO])}),
    (SkipRegion, {}, {"region": (["E1", "E4"], ["NONE", "E5"])}),
    (SkipRegion, {"region": "E1"}, {"convention": (["surprisal", "probability", "exact"], ["E1"])}),
    (
        PolarityAware,
        {},
        {"strength": ([0.0, 0.999], [-1e-9, 1.0, NO]), "scale": ([1e-9], [0.0, NO]), "lag": ([1], [0])},
    ),
    (
        TargetWeights,
        {"curve": CURVE},
        {
            "strength": ([0.0, 0.999], [-1e-9, 1.0, NO]),
            "punished": ([0.0, 1.0], [-1e-9, 1.001, NO]),
            "by": (["polarity", "logp"], ["entropy"]),
            "reach": ([1], [0, NO]),
            "most_change": ([1e-9, 2.0], [0.0, 2.001, NO]),
        },
    ),
    (TargetEntropy, {"curve": CURVE}, {"memory": ([1], [0.99, NO]), "reach": ([1], [0])}),
    (Opefo, {}, {"bound": ([1e-9, 1.0], [0.0, 1.001, NO])}),
    (Stare, {}, {"share": ([1e-9, 1.0], [0.0, 1.001]), "weight": ([1.0], [0.999]), "most": ([1.1], [1.099])}),
    (
        Steer,
        {},
        {
            "low": ([1e-9, 1.0], [0.0, 1.001]),
            "high": ([1.0], [0.999]),
            "least": ([1e-9], [0.0]),
            "form": ([], ["cubic"]),
        },
    ),
    (
        EntropicWeights,
        {"target": 0.5},
        {
            "target": ([1e-9], [0.0, -1.0]),
            "kp": ([0.0], [-1e-9]),
            "ki": ([0.0], [-1e-9]),
            "bound": ([1e-9, 1.0], [0.0, 1.001]),
        },
    ),
    (
        EntroPic,
        {"target": 0.5},
        {
            "target": ([1e-9], [0.0, -1.0]),
            "kp": ([0.0], [-1e-9]),
            "ki": ([0.0], [-1e-9]),
            "likely": ([0.0, 0.999], [-1e-9, 1.0]),
            "bound": ([1e-9, 1.0], [0.0, 1.001]),
        },
    ),
    (
        Gepo,
        {"group_size": 1},
        {
            "group_size": ([1], [0]),
            "rewarded": ([0.2, 1.0], [0.199, 1.001]),
            "punished": ([0.0, 0.5], [-1e-9, 0.501]),
            "below": ([0.0], [-1e-9]),
            "above": ([0.0], [-1e-9]),
            "rate": ([1e-9, 1.0], [0.0, 1.001]),
        },
    ),
    (FixedWeights, {}, {"expanding": ([0.0], [-1e-9, NO]), "contracting": ([0.0], [-1e-9, NO])}),
    (ConstantBonus, {}, {"value": ([0.0], [-1e-9, NO])}),
    (
        AdaptiveBonus,
        {"target": 0.5},
        {
            "target": ([1e-9, CURVE], [0.0, -1.0]),
            "delta": ([1e-9], [0.0]),
            "start": ([0.0, 1.0], [-1e-9, 1.001]),
            "least": ([0.0], [-1e-9, 1e-9]),
            "most": ([0.0], [-1e-9]),
        },
    ),
    (IncreaseThenDecrease, {}, {"split": ([1e-9, 0.999], [0.0, 1.0, NO])}),
    (
        OscillatoryDecay,
        {},
        {"h_init": ([1e-9, None], [0.0, -1.0, math.inf, NO]), "h_min_ratio": ([1e-9, 0.999], [0.0, 1.0, NO])},
    ),
    (DualClipped, {"inner": Constant()}, {"cap": ([1.001], [1.0, NO]), "inner": ([], [FixedWeights()])}),
    (EntropyController, {}, {"ema": ([0.0, 0.999], [-1e-9, 1.0, NO]), "total_steps": ([1, None], [0])}),
    (
        Curve,
        {},
        {
            "points": (
                [((0.0, 1.0), (1.0, 1e-9)), ((0.3, 1.0),)],
                [((-1e-9, 1.0),), ((1.001, 1.0),), ((0.5, 0.0),), ((0.5, math.inf),), ((0.5, 1.0), (0.4, 1.0)), ()],
            )
        },
    ),
    (Curve, {"points": ((0.0, 1.0),)}, {"shape": (["linear", "cosine"], ["step"])}),
]


@pytest.mark.parametrize(("method", "needed", "settings"), RANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_setting_is_accepted_within_its_range_and_refused_by_name_outside(method, needed, settings):
    for name, (accepted, refused) in settings.items():
        for value in accepted:
            method(**{**needed, name: value})
        for value in refused:
            with pytest.raises(ValueError, match=name):
                method(**{**needed, name: value})


NAMES = [
    (
        strategy,
        {
            "id": IncreaseThenDecrease,
            "did": DecreaseIncreaseDecrease,
            "od": OscillatoryDecay,
            "target-entropy": TargetEntropy,
            "piecewise": Piecewise,
        },
    ),
    (
        weighting,
        {
            "80/20": HighEntropyTokens,
            "clip-cov": ClipCov,
            "entropy-outliers": EntropyOutliers,
            "stare": Stare,
            "skip-region": SkipRegion,
            "polarity-aware": PolarityAware,
            "target-weights": TargetWeights,
            "gepo": Gepo,
            "opefo": Opefo,
            "steer": Steer,
            "entropic": EntroPic,
            "entropic-weights": EntropicWeights,
            "entrocraft": Entrocraft,
            "fixed": FixedWeights,
        },
    ),
    (bonus, {"constant": ConstantBonus, "adaptive": AdaptiveBonus}),
]


@pytest.mark.parametrize(("table", "methods"), NAMES)
def test_a_method_is_found_by_its_published_name(table, methods):
    for name, method in methods.items():
        assert table.find(name) is method


TARGETED = ("entropic", "entropic-weights", "repo-r")


def test_weights_have_no_gradient_even_where_the_statistics_have_one():
    logits = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    stats = token_stats(logits, torch.arange(12).view(2, 6) % 9, entropy_grad=True)
    advantages, mask = torch.linspace(-1, 1, 12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    needed = {
        "skip-region": {"region": "E1"},
        "target-weights": {"curve": CURVE},
        "gepo": {"group_size": 1},
        "aepo": {"low": 0.1, "high": 0.5},
    }
    for name in weighting:
        part = weighting.find(name)(**needed.get(name, {"target": 0.5} if name in TARGETED else {}))
        part.observe(measured(0.9))
        part.observe(measured(0.1))
        weights, term = (ask(batch_of(stats, advantages, mask)) for ask in (part.weights, part.unclipped))
        assert (weights is not None) == part.weighs
        assert not any(each.requires_grad for each in (weights, term) if each is not None), name
    loss = policy_loss(stats.logp, stats.logp.detach(), advantages, mask)
    assert not token_sums(stats, advantages, loss, mask).totals.requires_grad


BY_SIGN = ("aepo", "entrocraft", "gepo", "polarity-aware", "repo-r", "skip-region", "stare")


@pytest.mark.parametrize("name", BY_SIGN)
def test_what_goes_by_the_sign_of_the_advantage_goes_by_nothing_else_of_it(name):
    generator = torch.Generator().manual_seed(1)
    stats = token_stats(2 * torch.randn(6, 40, 9, generator=generator), torch.arange(240).view(6, 40) % 9)
    signs = torch.randint(-1, 2, (6, 40), generator=generator).float()
    sizes = torch.rand(6, 40, generator=generator) * 3 + 0.01
    differ = False
    for entropies in ((0.9, 0.9), (0.9, 0.1), (0.1, 0.9)):
        found = []
        for advantages in (signs, signs * sizes, signs * 1e-3):
            part = weighting.find(name)(**NEEDED.get(name, {}))
            for entropy in entropies:
                part.observe(measured(entropy))
            found.append(part.weights(batch_of(stats, advantages, torch.ones(6, 40, dtype=torch.bool))))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
        rewarded, punished, neither = (found[0][signs == sign] for sign in (1, -1, 0))
        differ |= not (rewarded.mean() == punished.mean() == neither.mean())
        if name in ("aepo", "gepo"):  # a token of advantage 0 is neither rewarded nor punished
            assert (neither == 1).all()
        if name == "entrocraft" and not (found[0] == 1).all():
            assert (neither == 0).all()
    assert differ


@pytest.mark.parametrize("table", [strategy, weighting, bonus], ids=["strategy", "weighting", "bonus"])
def test_what_a_part_remembers_is_no_setting(table):
    for name in table:
        method = table.find(name)
        settings = inspect.signature(method).parameters
        assert not [each for each in settings if each.startswith("_")], name
    assert not [
        each for each in inspect.signature(CurveFollower).parameters if each.startswith("_") or each == "action"
    ]


NEEDED = {"skip-region": {"region": "E1"}, "target-weights": {"curve": CURVE}, "gepo": {"group_size": 1}} | {
    "target-entropy": {"curve": CURVE},
    "piecewise": {"stages": (Stage(1.0),)},
    "entropic": {"target": 1.8, "likely": 0.0, "kp": 0.1},
    "entropic-weights": {"target": 0.5},
    "stare": {"share": 1.0},
    "constant": {"value": 0.1},
    "adaptive": {"target": 0.5},
    "repo-r": {"target": 0.5},
    "adapo": {"target": 0.5},
    "aepo": {"low": 0.1, "high": 0.5},
}
PARTS = [(table, name) for table in (strategy, weighting, bonus) for name in table]


def made(table, name):
    return table.find(name)(**NEEDED.get(name, {}))


@pytest.mark.parametrize(("table", "name"), PARTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_part_that_does_not_need_the_entropy_decides_the_same_whatever_it_is(table, name):
    stats = token_stats(torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)), torch.ones(2, 6).long())
    advantages, mask = torch.linspace(-1, 1, 12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    decisions = []
    for entropies in ((1.0, 0.9, 0.05), (1.0, 1.2, 3.0)):
        part = made(table, name)
        for entropy in entropies:
            part.observe(measured(entropy))
        weights = weights_of(part, stats, advantages, mask) if part.weighs else None
        term = part.unclipped(batch_of(stats, advantages, mask))
        asked = [each if each is None else each.tolist() for each in (weights, term)]
        decisions.append((part.clip(), *asked, part.bonus()))
    assert (decisions[0] != decisions[1]) == part.needs_entropy


@pytest.mark.parametrize(("table", "name"), PARTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_part_shows_its_settings_and_owns_the_band_that_it_returns(table, name):
    part = made(table, name)
    assert not re.search(r"\b_\w+=", repr(part))
    assert part.owns_band == (part.clip() is not None) == bool(part.bands())


def test_the_band_of_a_part_of_ones_own_is_among_its_bands():
    class Own(Part):
        def clip(self):
            return ClipRule.constant(upper=0.4)

    assert Own().bands() == (ClipRule.constant(upper=0.4),)
    assert Part().bands() == ()


@pytest.mark.parametrize("kind", dataclasses_of("entrostat.control"), ids=lambda kind: kind.__name__)
def test_what_is_no_part_and_has_no_state_cannot_be_changed(kind):
    assert kind.__dataclass_params__.frozen != issubclass(kind, Resumable)
    assert not any(each.repr for each in dataclasses.fields(kind) if each.name.startswith("_"))


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_edges_of_entrocraft_must_not_cross_at_either_end(end):
    above = Curve(((0.0, 0.9 if end == 0 else 0.1), (1.0, 0.9 if end else 0.1)))
    with pytest.raises(ValueError, match="lower edge must lie below"):
        Entrocraft(lower=above, upper=Curve.constant(0.5))


@pytest.mark.parametrize(("kind", "lacking"), [(Strategy, {"clip"}), (Schedule, {"at"})])
def test_a_strategy_that_lacks_its_band_is_not_made(kind, lacking):
    assert kind.__abstractmethods__ == lacking
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_every_part_has_a_name_but_those_that_others_make():
    """A recipe reaches a part by its name; a constant band, a dual clip and corrections have settings."""
    modules = [
        importlib.import_module(f"entrostat.control.{each.name}") for each in pkgutil.iter_modules(control.__path__)
    ]
    parts = {
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Part) and not inspect.isabstract(kind)
    }
    named = {table.find(name) for table in (strategy, weighting, bonus) for name in table}
    assert {kind.__name__ for kind in parts - named} == {"Part", "Constant", "DualClipped", "Corrected"}
