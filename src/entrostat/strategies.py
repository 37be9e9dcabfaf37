"""The strategies that move the clip bounds over training."""

from entrostat.control.strategies import (
    Constant,
    DecreaseIncreaseDecrease,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Schedule,
    Strategy,
)

__all__ = ["Constant", "DecreaseIncreaseDecrease", "IncreaseThenDecrease", "OscillatoryDecay", "Schedule", "Strategy"]
