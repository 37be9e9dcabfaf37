"""Statistics of the policy's distribution, token by token."""

from entrostat.tokens.fused import fused_token_stats
from entrostat.tokens.mismatch import effective_sample_size, sampler_kl
from entrostat.tokens.partial import VocabShard
from entrostat.tokens.stats import TokenStats, token_stats
from entrostat.tokens.topk import TopkTokenStats, topk_entropy_bounds, topk_token_stats

__all__ = [
    "TokenStats",
    "TopkTokenStats",
    "VocabShard",
    "effective_sample_size",
    "fused_token_stats",
    "sampler_kl",
    "token_stats",
    "topk_entropy_bounds",
    "topk_token_stats",
]
