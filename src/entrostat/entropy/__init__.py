"""Entropy polarity of tokens, and the four regions."""

from entrostat.entropy.polarity import entropy_flow, polarity, sensitivity
from entrostat.entropy.regions import Convention, Region, regions

__all__ = ["Convention", "Region", "entropy_flow", "polarity", "regions", "sensitivity"]
