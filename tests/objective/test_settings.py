"""Settings of objectives, bands and advantages: those that are left out, and the range of each."""

import dataclasses
import inspect
import math

import pytest
import torch
from values import dataclasses_of

from entrostat.objective import (
    AbcClip,
    Aspo,
    Bapo,
    CeGppo,
    Cispo,
    Clip,
    ClipBand,
    ClipRule,
    ClipUndetached,
    Correction,
    Cppo,
    DcpoClip,
    Dppo,
    DppoClip,
    Drpo,
    DualClip,
    Gmpo,
    Gspo,
    LinearThreshold,
    Luspo,
    Nsr,
    Objective,
    Reinforce,
    RipoClip,
    Sapo,
    Up,
    Vespo,
    advantages,
    policy_loss,
)
from entrostat.objective.bands import FreeRegion
from entrostat.objective.clipping import clip_rule
from entrostat.objective.corrections import (
    Decoupled,
    Estr,
    IcePop,
    Mis,
    Opsm,
    SampledTokens,
    SeqMaskTis,
    Tis,
    correction,
)
from entrostat.objective.losses import aggregate, token_weights
from entrostat.objective.regularisers import adapted_coefficient, kl_cov_penalty, kl_cov_tokens, kl_to_reference
from entrostat.objective.surrogates import named, objective

STANDARD = ClipRule(LinearThreshold(0.0, 0.2), LinearThreshold(0.0, 0.2))
DEFAULTS = {
    ClipRule: {"upper": STANDARD.upper, "lower": STANDARD.lower, "least": 0.0, "most": None},
    DualClip: {"band": STANDARD, "cap": 3.0},
    DppoClip: {"delta": 0.15},
    RipoClip: {"delta": 0.05, "low": 0.5, "high": 10.0},
    Dppo: {"divergence": "tv", "delta": 0.15, "cap": 20.0, "direction": "ratio"},
    Cppo: {"delta": 0.15, "budget": 0.015, "least": 0.8, "adaptive": False},
    Drpo: {"epsilon": 12.5},
    Aspo: {"cap": 3.0},
    Vespo: {"k_rewarded": 2.0, "lambda_rewarded": 3.0, "k_punished": 3.0, "lambda_punished": 2.0},
    DcpoClip: {"lower": 0.16, "upper": 0.2, "cap": 10.0},
    AbcClip: {"e1": 0.2, "e2": 0.2, "e3": 0.2, "e4": 0.2},
    FreeRegion: {"band": STANDARD},
    Bapo: {
        "low": 0.6,
        "low_max": 0.9,
        "high": 1.2,
        "high_max": 3.0,
        "share": 0.5,
        "step": 0.05,
        "form": "paper",
        "cap": 3.0,
    },
    Sapo: {"tau_rewarded": 1.0, "tau_punished": 1.05},
    CeGppo: {"punished": 0.75, "rewarded": 1.0},
    Nsr: {"width": 0.1, "keep": 0.5},
    Tis: {"cap": 2.0, "low": 0.0, "level": "token"},
    Mis: {"low": 0.0, "high": 3.0, "level": "token"},
    IcePop: {"low": 0.5, "high": 5.0, "level": "token"},
    SeqMaskTis: {"low": 0.5, "high": 5.0, "cap": None},
    Decoupled: {"cap": 5.0},
    Opsm: {"delta": 1e-4},
    Estr: {"tau": 1.0, "epsilon": 0.01},
    policy_loss: {"objective": "clip"},
    aggregate: {"mode": "token-mean"},
    token_weights: {"mode": "token-mean"},
    kl_cov_tokens: {"share": 2e-4},
    kl_cov_penalty: {"share": 2e-4, "coefficient": 1.0},
    kl_to_reference: {"temperature": 1.0},
    adapted_coefficient: {"gain": 0.1, "least": 1e-4, "most": 10.0},
    advantages.EmaBaseline: {"decay": 0.9},
    advantages.reinforce: {"baseline": "none"},
    advantages.grpo: {"epsilon": 1e-6},
    advantages.quantile: {"level": 0.4, "epsilon": 1e-6},
    advantages.w_reinforce: {"weight": 0.1},
}


@pytest.mark.parametrize("method", DEFAULTS, ids=lambda method: method.__name__)
def test_a_setting_that_is_left_out_keeps_its_value(method):
    given = {name: each.default for name, each in inspect.signature(method).parameters.items()}
    assert {name: given[name] for name in DEFAULTS[method]} == DEFAULTS[method]


@pytest.mark.parametrize(
    ("method", "lower", "upper"),
    [
        (Cispo, 1.0, 4.0),
        (Gmpo, 1 - math.exp(-0.4), math.exp(0.4) - 1),
        (Gspo, 3e-4, 4e-4),
        (Luspo, 2e-3, 2.5e-3),
        (Clip, 0.2, 0.2),
    ],
)
def test_an_objective_whose_caller_gives_no_band_has_the_published_one(method, lower, upper):
    assert method.rule == ClipRule.constant(lower=lower, upper=upper)


def test_a_band_that_is_left_out_is_a_fifth_on_both_sides():
    assert ClipRule.constant() == STANDARD == ClipRule()
    assert ClipRule.constant(upper=0.28) == ClipRule(LinearThreshold(0.0, 0.28), STANDARD.lower)


NO = math.nan
REWARDS, LOGP, MASK = torch.tensor([[0.0, 1.0]]), torch.tensor([-1.0, -2.0]), torch.ones(2)
RANGES = [  # a method, what it needs besides, and per setting the values that are accepted and refused
    (DualClip, {}, {"cap": ([1.001], [1.0, NO])}),
    (DppoClip, {}, {"delta": ([1e-9, 0.999], [0.0, 1.0, NO])}),
    (ClipRule, {}, {"least": ([0.0, 9.0], [-1e-9, NO]), "most": ([0.0, None], [-1e-9, NO])}),
    (
        RipoClip,
        {},
        {"delta": ([1e-9], [0.0, NO]), "low": ([0.0, 1.0], [-1e-9, 1.001]), "high": ([1.0], [0.999, NO])},
    ),
    (
        Dppo,
        {},
        {
            "delta": ([1e-9, 0.999], [0.0, 1.0, NO]),
            "cap": ([1.001], [1.0, NO]),
            "divergence": (["kl"], ["js"]),
            "direction": (["predicted"], ["none"]),
        },
    ),
    (
        Cppo,
        {},
        {
            "delta": ([1e-9, 0.999], [0.0, 1.0, NO]),
            "budget": ([0.0], [-1e-9, NO]),
            "least": ([1e-9, 1.0], [0.0, 1.001, NO]),
        },
    ),
    (Drpo, {}, {"epsilon": ([1e-9], [0.0, NO])}),
    (Aspo, {}, {"cap": ([1.001], [1.0, NO])}),
    (
        Vespo,
        {},
        {name: ([0.0], [-1e-9, NO]) for name in ("k_rewarded", "lambda_rewarded", "k_punished", "lambda_punished")},
    ),
    (DcpoClip, {}, {"lower": ([0.0], [-1e-9, NO]), "upper": ([0.0], [-1e-9, NO]), "cap": ([1.0], [0.999, NO])}),
    (
        AbcClip,
        {},
        {
            "e1": ([0.0, 9.0], [-1e-9]),
            "e3": ([0.0, 9.0], [-1e-9]),
            "e2": ([0.0, 1.0], [-1e-9, 1.001]),
            "e4": ([0.0, 1.0], [-1e-9, 1.001]),
        },
    ),
    (FreeRegion, {}, {"region": (["E1", "E2", "E3", "E4"], ["NONE", "E5"])}),
    (
        Bapo,
        {},
        {
            "low": ([0.0, 0.9], [-1e-9, 0.901]),
            "low_max": ([0.6, 1.0], [0.599, 1.001]),
            "high": ([1.0, 3.0], [0.999, 3.001]),
            "high_max": ([1.2], [1.199]),
            "share": ([1e-9, 0.999], [0.0, 1.0]),
            "step": ([1e-2], [0.0]),
            "form": (["code"], ["README"]),
            "cap": ([1.001], [1.0, NO]),
        },
    ),
    (Sapo, {}, {"tau_rewarded": ([1e-9], [0.0, NO]), "tau_punished": ([1e-9], [0.0, NO])}),
    (CeGppo, {}, {"punished": ([0.0], [-1e-9, NO]), "rewarded": ([0.0], [-1e-9, NO])}),
    (Nsr, {}, {"width": ([0.0], [-1e-9, NO]), "keep": ([0.0, 1.0], [-1e-9, 1.001, NO])}),
    (
        Tis,
        {},
        {
            "low": ([0.0, 1.0], [-1e-9, 1.001]),
            "cap": ([1.0], [0.999, math.inf, NO]),
            "level": (["sequence"], ["batch"]),
        },
    ),
    (Mis, {}, {"low": ([0.0, 1.0], [-1e-9, 1.001]), "high": ([1.0], [0.999, math.inf, NO])}),
    (IcePop, {}, {"low": ([0.0, 1.0], [-1e-9, 1.001]), "high": ([1.0], [0.999, math.inf, NO])}),
    (SeqMaskTis, {}, {"low": ([0.0, 1.0], [-1e-9, 1.001]), "high": ([1.0], [0.999]), "cap": ([1.0, None], [0.999])}),
    (Decoupled, {}, {"cap": ([1.0, None], [0.999, NO])}),
    (Opsm, {}, {"delta": ([0.0], [-1e-9, NO])}),
    (Estr, {}, {"tau": ([1e-9], [0.0, NO]), "epsilon": ([1e-9], [0.0, NO])}),
    (advantages.EmaBaseline, {}, {"decay": ([0.0, 0.999], [-1e-9, 1.0, NO])}),
    (advantages.quantile, {"rewards": REWARDS}, {"level": ([1e-9, 0.999], [0.0, 1.0, NO])}),
    (advantages.w_reinforce, {"rewards": REWARDS}, {"weight": ([0.0], [-1e-9, NO])}),
    (kl_cov_tokens, {"logp": LOGP, "advantages": LOGP, "mask": MASK}, {"share": ([1e-9, 1.0], [0.0, 1.001, NO])}),
    (adapted_coefficient, {"coefficient": 1.0, "kl": 0.1}, {"target": ([1e-9], [0.0, -1.0, NO])}),
    (
        LinearThreshold,
        {"slope": 0.0, "intercept": 0.0},
        {"slope": ([-9.0], [NO, math.inf]), "intercept": ([-9.0], [NO])},
    ),
    (aggregate, {"per_token": LOGP, "mask": MASK}, {"denominator": ([1e-9], [0.0, -1.0]), "mode": ([], ["sum"])}),
]


@pytest.mark.parametrize(("method", "needed", "settings"), RANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_setting_is_accepted_within_its_range_and_refused_by_name_outside(method, needed, settings):
    for name, (accepted, refused) in settings.items():
        for value in accepted:
            method(**{**needed, name: value})
        for value in refused:
            with pytest.raises(ValueError, match=name):
                method(**{**needed, name: value})


@pytest.mark.parametrize(
    ("name", "settings", "band"),
    [
        ("constant", {"upper": 0.3, "lower": 0.1}, ClipRule.constant(upper=0.3, lower=0.1)),
        ("clip-higher", {}, ClipRule.constant(upper=0.28, lower=0.2)),
        ("clip-lower", {}, ClipRule.constant(upper=0.2, lower=0.1)),
        ("dual-clip", {}, DualClip(STANDARD, 3.0)),
        ("dual-clip", {"upper": 0.3, "lower": 0.1, "cap": 2.0}, DualClip(ClipRule.constant(upper=0.3, lower=0.1), 2.0)),
        ("free-region", {"region": "E2"}, FreeRegion("E2", STANDARD)),
        ("free-region", {"region": "E2", "upper": 0.3}, FreeRegion("E2", ClipRule.constant(upper=0.3))),
        *[("dppo", {}, DppoClip()), ("dcpo", {}, DcpoClip()), ("abc", {}, AbcClip()), ("linear", {}, ClipRule())],
        ("ripo", {}, RipoClip()),
    ],
)
def test_a_band_is_found_by_its_name(name, settings, band):
    assert clip_rule.find(name)(**settings) == band


def test_only_a_band_that_depends_on_the_old_probability_is_per_token():
    flat = [ClipRule(), AbcClip(), DualClip(), DualClip(AbcClip())]
    sloped = [ClipRule(LinearThreshold(0.1, 0.2)), ClipRule(lower=LinearThreshold(0.1, 0.2)), DppoClip(), DcpoClip()]
    assert not any(band.per_token for band in flat)
    assert all(band.per_token for band in [*sloped, DualClip(DppoClip()), FreeRegion("E1"), RipoClip()])
    assert not ClipRule(LinearThreshold(0.1, 0.2), least=0.2, most=0.2).per_token


SLOPED = ClipRule(LinearThreshold(-0.25, 0.5), LinearThreshold(-0.13, 0.3))
NARROW = ClipRule(LinearThreshold(-5e-4, 1e-3), LinearThreshold(-2.6e-4, 6e-4))
BANDS = {"flat": ClipRule(), "sloped": SLOPED, "dual": DualClip(), "dppo": DppoClip(), "narrow": NARROW}


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        *[(name, set(BANDS)) for name in ("clip", "ce-gppo", "nsr", "gmpo", "up")],
        *[(name, set()) for name in ("reinforce", "sapo", "bapo", "dppo", "cppo", "drpo", "vespo")],
        ("clip-undetached", {"sloped", "narrow"}),
        *[(name, {"flat", "sloped", "dppo", "narrow"}) for name in ("cispo", "aspo")],
        *[(name, {"narrow"}) for name in ("gspo", "luspo")],
    ],
)
def test_an_objective_says_which_bands_it_cannot_use(name, usable):
    chosen = named(name)
    assert {band for band, rule in BANDS.items() if chosen.refuses([rule]) is None} == usable
    if name not in ("clip-undetached",):
        assert all(chosen.refuses([BANDS[band] for band in usable]) is None for _ in usable)


def test_the_undetached_clip_can_use_a_schedule_between_flat_and_sloped_rules():
    chosen = named("clip-undetached")
    assert chosen.refuses([SLOPED, ClipRule()]) is None
    assert "linear in p" in chosen.refuses([SLOPED, DppoClip()])
    assert "no slope" in chosen.refuses([ClipRule(), ClipRule()])


def test_each_objective_names_the_aggregations_it_is_defined_for():
    every = ("token-mean", "sequence-mean", "sequence-sum", "constant")
    only = dict.fromkeys(("sapo", "gspo", "gmpo"), ("sequence-mean",)) | {"luspo": ("sequence-sum",)}
    for name in objective:
        assert named(name).aggregations == only.get(name, every)
        assert named(name).compares == (name == "bapo")


def test_what_is_defined_around_the_sampler_says_so():
    assert {name for name in objective if named(name).anchored} == {"dppo", "cppo", "drpo"}
    assert {name for name in clip_rule if getattr(clip_rule[name], "anchored", False)} == {"dppo"}


@pytest.mark.parametrize("kind", dataclasses_of("entrostat.objective"), ids=lambda kind: kind.__name__)
def test_what_was_made_cannot_be_changed(kind):
    one = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field.name, None)


def test_two_of_the_same_settings_are_equal():
    for name in objective:
        assert named(name) == named(name)
        assert hash(named(name)) == hash(named(name))
    assert Bapo() != Bapo(share=0.4)
    assert len({Tis(), Tis(), Tis(cap=3.0), Mis(), IcePop(), Decoupled(), Opsm(), Estr(), SeqMaskTis()}) == 8


NAMES = [
    (
        objective,
        {
            "clip": Clip,
            "bapo": Bapo,
            "clip-undetached": ClipUndetached,
            "reinforce": Reinforce,
            "cispo": Cispo,
            "sapo": Sapo,
            "ce-gppo": CeGppo,
            "nsr": Nsr,
            "gspo": Gspo,
            "gmpo": Gmpo,
            "luspo": Luspo,
            "dppo": Dppo,
            "cppo": Cppo,
            "drpo": Drpo,
            "up": Up,
            "aspo": Aspo,
            "vespo": Vespo,
        },
    ),
    (
        correction,
        {
            "tis": Tis,
            "mis": Mis,
            "icepop": IcePop,
            "seq-mask-tis": SeqMaskTis,
            "decoupled": Decoupled,
            "opsm": Opsm,
            "estr": Estr,
        },
    ),
    (
        advantages.advantage,
        {
            "reinforce": advantages.reinforce,
            "grpo": advantages.grpo,
            "dr-grpo": advantages.dr_grpo,
            "qae": advantages.quantile,
            "w-reinforce": advantages.w_reinforce,
        },
    ),
]


PUBLISHED = {  # by name, with what is left out
    "constant": ClipRule.constant(),
    "dual-clip": DualClip(ClipRule.constant(), 3.0),
    "clip-higher": ClipRule.constant(upper=0.28),
    "clip-lower": ClipRule.constant(lower=0.1),
    "dppo": DppoClip(0.15),
    "ripo": RipoClip(0.05, 0.5, 10.0),
    "dcpo": DcpoClip(0.16, 0.2, 10.0),
    "abc": AbcClip(0.2, 0.2, 0.2, 0.2),
}


def test_a_band_is_made_by_its_published_name_with_the_published_numbers():
    assert {name: clip_rule.find(name)() for name in PUBLISHED} == PUBLISHED
    assert clip_rule.find("free-region")("E2") == FreeRegion("E2", ClipRule.constant())
    for name in ("constant", "dual-clip", "free-region"):
        own = clip_rule.find(name)(**{"region": "E1"} if name == "free-region" else {}, upper=0.3, lower=0.1)
        assert getattr(own, "band", own) == ClipRule.constant(upper=0.3, lower=0.1)


@pytest.mark.parametrize("name", correction)
def test_a_correction_reads_the_entropy_only_where_it_says_so(name):
    logp, mask = torch.full((2, 3), -1.0), torch.ones(2, 3, dtype=torch.bool)
    tokens = SampledTokens(logp, logp - 0.1, logp - 0.2, torch.ones(2, 3), mask)
    rule = correction.find(name)()
    if rule.needs_entropy:
        with pytest.raises(ValueError, match="entropy"):
            rule(tokens)
    else:
        assert rule(tokens).shape == (2, 3)


@pytest.mark.parametrize(("table", "methods"), NAMES)
def test_a_method_is_found_by_its_published_name(table, methods):
    for name, method in methods.items():
        assert table.find(name) is method


@pytest.mark.parametrize(
    ("kind", "lacking"), [(ClipBand, {"bounds"}), (Objective, {"__call__"}), (Correction, {"__call__"})]
)
def test_a_method_that_lacks_what_every_one_has_is_not_made(kind, lacking):
    assert kind.__abstractmethods__ == lacking
    with pytest.raises(TypeError, match="abstract"):
        kind()


@pytest.mark.parametrize(("kind", "table"), [(Objective, objective), (Correction, correction)])
def test_every_method_has_a_name(kind, table):
    made = {each for each in dataclasses_of("entrostat.objective") if issubclass(each, kind) and each is not kind}
    named = {table.find(name) for name in table}
    assert {each.__name__ for each in made - named} == set()
