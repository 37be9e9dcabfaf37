"""Parts that are built without settings have those of their source, or of ours."""

import inspect

import pytest

from entrostat.control import (
    AdaptiveBonus,
    ClipCov,
    DecreaseIncreaseDecrease,
    DualClipped,
    EntroPic,
    EntropyController,
    EntropyOutliers,
    FixedWeights,
    FlowCalibration,
    Gepo,
    HighEntropyTokens,
    IncreaseThenDecrease,
    Opefo,
    OscillatoryDecay,
    PolarityAware,
    SkipRegion,
    Stare,
    Steer,
    TargetEntropy,
    TargetWeights,
)
from entrostat.control.following import CurveFollower
from entrostat.objective import ClipRule, LinearThreshold

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
    TargetWeights: {"strength": 0.5, "memory": 30.0, "reach": 5},
    CurveFollower: {"memory": 30.0, "reach": 5},
    HighEntropyTokens: {"share": 0.2},
    ClipCov: {"share": 2e-4, "low": 1.0, "high": 5.0},
    EntropyOutliers: {"limit": 2.5, "centred": False},
    SkipRegion: {"convention": "surprisal"},
    Opefo: {"bound": 1.0},
    Stare: {"share": 0.1, "weight": 1.1, "target": 0.3, "adaptive": False, "step": 0.01, "most": 1.5},
    Steer: {"form": "linear", "low": 0.8, "high": 1.2, "rate": 1.0},
    Gepo: {"factor": 0.5, "low": 0.25, "high": 0.75},
    EntroPic: {"kp": 1.0, "ki": 0.01, "bound": 0.9},
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
