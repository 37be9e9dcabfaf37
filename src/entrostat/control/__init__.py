"""Deciding: strategies, weightings, the controller that a trainer talks to, and the diagnostics of a step."""

from entrostat.control.bonus import AdaptiveBonus, Bonus, ConstantBonus
from entrostat.control.calibration import FlowCalibration, Prediction
from entrostat.control.controller import EntropyController
from entrostat.control.curves import Curve
from entrostat.control.diagnostics import TokenSums, token_sums
from entrostat.control.masking import ClipCov, EntropyOutliers, HighEntropyTokens, SkipRegion
from entrostat.control.piecewise import Piecewise, Stage
from entrostat.control.polarity_aware import PolarityAware
from entrostat.control.reweighting import FixedWeights, Reweighting
from entrostat.control.rivals import Entrocraft, EntroPic, Gepo, Opefo, Stare, Steer
from entrostat.control.strategies import (
    Constant,
    DecreaseIncreaseDecrease,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Phase,
    Strategy,
)
from entrostat.control.target import TargetEntropy, TargetWeights

__all__ = [
    "AdaptiveBonus",
    "Bonus",
    "ClipCov",
    "Constant",
    "ConstantBonus",
    "Curve",
    "DecreaseIncreaseDecrease",
    "EntroPic",
    "Entrocraft",
    "EntropyController",
    "EntropyOutliers",
    "FixedWeights",
    "FlowCalibration",
    "Gepo",
    "HighEntropyTokens",
    "IncreaseThenDecrease",
    "Opefo",
    "OscillatoryDecay",
    "Phase",
    "Piecewise",
    "PolarityAware",
    "Prediction",
    "Reweighting",
    "SkipRegion",
    "Stage",
    "Stare",
    "Steer",
    "Strategy",
    "TargetEntropy",
    "TargetWeights",
    "TokenSums",
    "token_sums",
]
