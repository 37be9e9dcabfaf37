"""The entropy controller, its parts, and the diagnostics of a step."""

from entrostat.control.adapo import Adapo
from entrostat.control.aepo import Aepo
from entrostat.control.bonus import AdaptiveBonus, ConstantBonus
from entrostat.control.calibration import FlowCalibration, Prediction
from entrostat.control.clip_cov import ClipCov
from entrostat.control.controller import EntropyController
from entrostat.control.curves import Curve
from entrostat.control.diagnostics import TokenSums, token_sums
from entrostat.control.entrocraft import Entrocraft
from entrostat.control.entropic import EntroPic, EntropicWeights
from entrostat.control.entropy_dynamics import EntropyOutliers
from entrostat.control.erc import EntropyRatioClip
from entrostat.control.gepo import Gepo
from entrostat.control.high_entropy import HighEntropyTokens
from entrostat.control.mai import Mai
from entrostat.control.mismatch import Corrected, MismatchSums, mismatch_sums
from entrostat.control.opefo import Opefo
from entrostat.control.part import Measured, Part, Phase, TokenBatch
from entrostat.control.polarity_aware import PolarityAware
from entrostat.control.repo_r import RepoR
from entrostat.control.reweighting import FixedWeights
from entrostat.control.skip_region import SkipRegion
from entrostat.control.stare import Stare
from entrostat.control.steer import Steer
from entrostat.control.strategies import (
    Constant,
    DecreaseIncreaseDecrease,
    DualClipped,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Piecewise,
    Schedule,
    Stage,
    Strategy,
)
from entrostat.control.target import TargetEntropy, TargetWeights

__all__ = [
    "Adapo",
    "AdaptiveBonus",
    "Aepo",
    "ClipCov",
    "Constant",
    "ConstantBonus",
    "Corrected",
    "Curve",
    "DecreaseIncreaseDecrease",
    "DualClipped",
    "EntroPic",
    "Entrocraft",
    "EntropicWeights",
    "EntropyController",
    "EntropyOutliers",
    "EntropyRatioClip",
    "FixedWeights",
    "FlowCalibration",
    "Gepo",
    "HighEntropyTokens",
    "IncreaseThenDecrease",
    "Mai",
    "Measured",
    "MismatchSums",
    "Opefo",
    "OscillatoryDecay",
    "Part",
    "Phase",
    "Piecewise",
    "PolarityAware",
    "Prediction",
    "RepoR",
    "Schedule",
    "SkipRegion",
    "Stage",
    "Stare",
    "Steer",
    "Strategy",
    "TargetEntropy",
    "TargetWeights",
    "TokenBatch",
    "TokenSums",
    "mismatch_sums",
    "token_sums",
]
