"""Settings that are left out have the values of the source: GRPO's band, DCPO's, BAPO's, and so on."""

import inspect

import pytest

from entrostat.objective import (
    AbcClip,
    ClipRule,
    DcpoClip,
    DppoClip,
    DualClip,
    LinearThreshold,
    advantages,
    policy_loss,
)
from entrostat.objective.bands import FreeRegion
from entrostat.objective.losses import aggregate, token_weights
from entrostat.objective.regularisers import adapted_coefficient, kl_cov_penalty, kl_cov_tokens, kl_to_reference
from entrostat.objective.surrogates import Bapo, CeGppo, Nsr, Sapo

STANDARD = ClipRule(LinearThreshold(0.0, 0.2), LinearThreshold(0.0, 0.2))
DEFAULTS = {
    ClipRule: {"upper": STANDARD.upper, "lower": STANDARD.lower},
    DualClip: {"band": STANDARD, "cap": 3.0},
    DppoClip: {"delta": 0.2},
    DcpoClip: {"lower": 0.16, "upper": 0.2, "cap": 10.0},
    AbcClip: {"e1": 0.2, "e2": 0.2, "e3": 0.2, "e4": 0.2},
    FreeRegion: {"band": STANDARD},
    Bapo: {"low": 0.6, "low_max": 0.9, "high": 1.2, "high_max": 3.0, "share": 0.5, "step": 0.02},
    Sapo: {"tau_rewarded": 1.0, "tau_punished": 1.05},
    CeGppo: {"punished": 0.75, "rewarded": 1.0},
    Nsr: {"width": 0.1, "keep": 0.5},
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


def test_a_band_that_is_left_out_is_a_fifth_on_both_sides():
    assert ClipRule.constant() == STANDARD == ClipRule()
    assert ClipRule.constant(upper=0.28) == ClipRule(LinearThreshold(0.0, 0.28), STANDARD.lower)
