"""Statistics of the policy's distribution, token by token."""

from entrostat.tokens.stats import TokenStats, token_stats

__all__ = ["TokenStats", "token_stats"]
