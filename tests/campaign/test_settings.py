"""Settings of campaign rules: those that are left out, and the range of each."""

import dataclasses
import inspect

import pytest
from values import dataclasses_of

from entrostat.campaign import Care, CareV1, CareV2, Crest, EarlyStop, Naive
from entrostat.campaign.loop import Schedule
from entrostat.campaign.stopping import StopRule, campaign_rule

DEFAULTS = {
    Naive: {"steps": 20},
    EarlyStop: {"patience": 3, "mode": "online", "steps": 20},
    CareV1: {"threshold": 0.5, "factor": 0.5, "steps": 20},
    CareV2: {"threshold": 0.5, "pilot": 10, "steps": 20},
    Care: {
        "pilot": 10,
        "prior": 1.0,
        "noise": (0.05, 0.2, 0.08),
        "tolerance": (0.2, 0.05),
        "low": 0.3,
        "high": 0.7,
        "few": 2,
        "radius": 0.15,
        "adapt_rate": 0.5,
        "quantile": 0.95,
        "tighten": 0.7,
        "memory": True,
        "gate": True,
        "steps": 20,
    },
    Crest: {
        "signals": False,
        "kl": 0.03,
        "outside": 0.05,
        "log_ratio": -3.0,
        "votes": 2,
        "window": 2,
        "growth": 1.5,
        "spacing": 5,
        "block": 16,
        "alpha": 0.05,
        "loss": 0.1,
        "looks": 2,
        "margin": 0.8,
        "recovery": 1.1,
        "steps": 20,
    },
    Schedule: {"every": 1, "report": "peak"},
}


@pytest.mark.parametrize("rule", DEFAULTS, ids=lambda rule: rule.__name__)
def test_a_setting_that_is_left_out_keeps_its_value(rule):
    given = {name: each.default for name, each in inspect.signature(rule).parameters.items()}
    assert {name: given[name] for name in DEFAULTS[rule]} == DEFAULTS[rule]


COUNT, SHARE = ([1], [0]), ([1e-9, 1.0], [0.0, 1.001])
RANGES = {
    Naive: {"steps": COUNT},
    EarlyStop: {"patience": COUNT, "steps": COUNT, "mode": (["online", "budget"], ["offline"])},
    CareV1: {"threshold": SHARE, "factor": SHARE, "steps": COUNT},
    CareV2: {"threshold": SHARE, "pilot": COUNT, "steps": COUNT},
    Care: {
        "pilot": COUNT,
        "few": COUNT,
        "steps": COUNT,
        "adapt_rate": SHARE,
        "quantile": SHARE,
        "tighten": SHARE,
        "low": ([1e-9, 0.7], [0.0, 0.701]),
        "high": ([0.3, 1.0], [0.299, 1.001]),
        "prior": ([1e-9], [0.0]),
        "radius": ([1e-9], [0.0]),
        "noise": ([(1e-9, 1e-9, 1e-9)], [(0.0, 1, 1), (1, 0.0, 1), (1, 1, 0.0)]),
    },
    Crest: {
        "votes": ([1, 3], [0, 4]),
        "window": COUNT,
        "spacing": COUNT,
        "block": COUNT,
        "looks": COUNT,
        "steps": COUNT,
        "log_ratio": ([-1e-9], [0.0, 1.0]),
        "kl": ([1e-9], [0.0]),
        "outside": ([1e-9], [0.0]),
        "growth": ([1e-9], [0.0]),
        "alpha": ([1e-9, 0.49], [0.0, 0.5]),
        "loss": ([1e-9, 0.99], [0.0, 1.0]),
        "margin": ([1e-9], [0.0]),
        "recovery": ([1.0], [0.999]),
    },
    Schedule: {"every": ([1, None], [0]), "report": (["peak", "every"], ["never"])},
}


@pytest.mark.parametrize("rule", RANGES, ids=lambda rule: rule.__name__)
def test_a_setting_is_accepted_within_its_range_and_refused_by_name_outside(rule):
    for name, (accepted, refused) in RANGES[rule].items():
        for value in accepted:
            rule(**{name: value})
        for value in refused:
            with pytest.raises(ValueError, match=name):
                rule(**{name: value})


@pytest.mark.parametrize("kind", dataclasses_of("entrostat.campaign"), ids=lambda kind: kind.__name__)
def test_what_was_made_cannot_be_changed(kind):
    one = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field.name, None)


def test_a_rule_is_found_by_its_published_name():
    made = {
        "naive": Naive(),
        "es-online": EarlyStop(mode="online"),
        "es-budget": EarlyStop(mode="budget"),
        "care-v1": CareV1(),
        "care-v2": CareV2(),
        "care": Care(),
        "care-memory-only": Care(gate=False),
        "care-gate-only": Care(memory=False),
        "crest": Crest(),
    }
    assert {name: campaign_rule.find(name)() for name in made} == made


def test_every_rule_has_a_name():
    made = {kind for kind in dataclasses_of("entrostat.campaign") if issubclass(kind, StopRule)}
    assert {kind.__name__ for kind in made - {type(campaign_rule.find(name)()) for name in campaign_rule}} == set()
