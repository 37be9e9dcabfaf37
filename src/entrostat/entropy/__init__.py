"""Entropy polarity of tokens and the four regions; turns; and whether completions depend on their prompts."""

from entrostat.entropy.flow import bonus_flow, entropy_flow, entropy_push, flow_by_rule, flow_of_loss, kl_flow
from entrostat.entropy.information import estimates, information_terms, prompt_information
from entrostat.entropy.polarity import Convention, Region, polarity, regions, sampled_part, sensitivity
from entrostat.entropy.turns import TurnSums, turn_numbers, turn_sums

__all__ = [
    "Convention",
    "Region",
    "TurnSums",
    "bonus_flow",
    "entropy_flow",
    "entropy_push",
    "estimates",
    "flow_by_rule",
    "flow_of_loss",
    "information_terms",
    "kl_flow",
    "polarity",
    "prompt_information",
    "regions",
    "sampled_part",
    "sensitivity",
    "turn_numbers",
    "turn_sums",
]
