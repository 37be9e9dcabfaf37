"""The names of `entrostat` that were imported from here before, for one release."""

import warnings

from entrostat.control import (
    Constant,
    DecreaseIncreaseDecrease,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Schedule,
    Strategy,
)

__all__ = ["Constant", "DecreaseIncreaseDecrease", "IncreaseThenDecrease", "OscillatoryDecay", "Schedule", "Strategy"]

warnings.warn(
    "import strategies from entrostat; entrostat.strategies goes in 0.2",
    DeprecationWarning,
    stacklevel=2,
)
