"""Entropy control and collapse prevention for reinforcement learning with verifiable rewards (RLVR).

Importing this package imports torch and nothing heavier; tasks, grading, runs, campaigns and the engine are imported
from their own rooms.
"""

from entrostat.control import EntropyController
from entrostat.entropy import Region, entropy_flow, polarity, regions, sensitivity
from entrostat.objective import ClipRule, LinearThreshold, advantages, aggregate, policy_loss
from entrostat.tokens import TokenStats, fused_token_stats, token_stats, topk_token_stats

__all__ = [
    "ClipRule",
    "EntropyController",
    "LinearThreshold",
    "Region",
    "TokenStats",
    "advantages",
    "aggregate",
    "entropy_flow",
    "fused_token_stats",
    "polarity",
    "policy_loss",
    "regions",
    "sensitivity",
    "token_stats",
    "topk_token_stats",
]
