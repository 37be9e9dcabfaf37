"""Entropy polarity of tokens, and the four regions."""

from entrostat.entropy.polarity import entropy_flow, polarity, sampled_part, sensitivity
from entrostat.entropy.regions import Convention, Region, regions
from entrostat.entropy.rules import flow_by_rule

__all__ = ["Convention", "Region", "entropy_flow", "flow_by_rule", "polarity", "regions", "sampled_part", "sensitivity"]
