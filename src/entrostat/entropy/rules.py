"""Three rules that predict the direction in which a token's update moves the entropy, to compare with measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat.entropy.polarity import sensitivity
from entrostat.tokens import TokenStats


@torch.no_grad()
def flow_by_rule(stats: TokenStats, advantages: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Return the flow of every token (...) in nats per unit of logit step, by three rules; slope is 0 if it is clipped.

    exact        slope A T,  T = C - S_a (`sensitivity`)
    token_only   -slope A S_a,  S_a = p_a (ln p_a + H): without the correction C
    surprisal    slope abs(A T) with the sign of A (-ln p_a - H): the table of the regions E1-E4, right for rare tokens
                 and wrong for likely ones with 0 < S_a < C
    Source: arXiv 2602.09782, section 1; arXiv 2605.11775.
    """
    surplus = (stats.logp + stats.entropy).masked_fill(stats.logp == -torch.inf, 0)
    exact = slope * advantages * sensitivity(stats)
    token_only = -slope * advantages * stats.logp.exp() * surplus
    return {"exact": exact, "token_only": token_only, "surprisal": exact.abs() * token_only.sign()}
