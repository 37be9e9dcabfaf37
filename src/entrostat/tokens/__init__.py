"""Statistics of the policy's distribution, token by token."""

from entrostat.tokens.fused import fused_token_stats
from entrostat.tokens.shard import VocabShard
from entrostat.tokens.stats import TokenStats, token_stats
from entrostat.tokens.topk import TopkTokenStats, topk_token_stats

__all__ = ["TokenStats", "TopkTokenStats", "VocabShard", "fused_token_stats", "token_stats", "topk_token_stats"]
