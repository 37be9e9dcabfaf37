"""Entropy polarity of tokens, and the four regions."""

from entrostat.entropy.flow import bonus_flow, entropy_flow, entropy_push, flow_by_rule, flow_of_loss, kl_flow
from entrostat.entropy.polarity import Convention, Region, polarity, regions, sampled_part, sensitivity

__all__ = [
    "Convention",
    "Region",
    "bonus_flow",
    "entropy_flow",
    "entropy_push",
    "flow_by_rule",
    "flow_of_loss",
    "kl_flow",
    "polarity",
    "regions",
    "sampled_part",
    "sensitivity",
]
