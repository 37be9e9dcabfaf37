"""Deciding: strategies, the controller that a trainer talks to, and the diagnostics of a step."""

from entrostat.control.controller import EntropyController
from entrostat.control.diagnostics import TokenSums, token_sums
from entrostat.control.reweighting import FixedWeights, Reweighting
from entrostat.control.strategies import (
    Constant,
    DecreaseIncreaseDecrease,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Strategy,
)

__all__ = [
    "Constant",
    "DecreaseIncreaseDecrease",
    "EntropyController",
    "FixedWeights",
    "IncreaseThenDecrease",
    "OscillatoryDecay",
    "Reweighting",
    "Strategy",
    "TokenSums",
    "token_sums",
]
