"""Rules of a campaign that are built without settings have those of their source, or of ours."""

import inspect

import pytest

from entrostat.campaign import Care, CareV1, CareV2, Crest, EarlyStop, Naive
from entrostat.campaign.loop import Schedule

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
        "kl": 0.03,
        "outside": 0.05,
        "log_ratio": -3.0,
        "votes": 2,
        "window": 2,
        "spacing": 4,
        "block": 16,
        "z": 2.0,
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
