"""Entropy polarity: how a token's policy-gradient step changes the entropy of its own state, to first order.

A step dz = eta r A (e_a - p) on the logits z of p = softmax(z) changes the entropy H by
    dH = eta r A T + O(eta^2),    T = C - S_a,    S_a = p_a (ln p_a + H),    C = sum_x p_x^2 (ln p_x + H)
T is the sensitivity and P = A T the polarity: above 0 the entropy rises, below 0 it falls. In every state
E_{a~p}[T] = 0, so the entropy changes only if the advantage correlates with S_a. Sources: arXiv 2605.11775; the inner
product of arXiv 2602.09782, section 1, in its exact form. Every function is detached and elementwise, for any shape.
"""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat.tokens import TokenStats


@torch.no_grad()
def sensitivity(stats: TokenStats) -> Tensor:
    """Return T = C - p_a (ln p_a + H), nats per unit of logit step; 0 if p is uniform, C if p_a is 0 or close to it."""
    return stats.correction - sampled_part(stats)


@torch.no_grad()
def sampled_part(stats: TokenStats) -> Tensor:
    """Return S_a = p_a (ln p_a + H), the sampled token's own part of the sensitivity; 0 for probability 0."""
    outside = stats.logp == -torch.inf
    return (stats.logp.exp() * (stats.logp + stats.entropy)).masked_fill(outside, 0)


@torch.no_grad()
def polarity(stats: TokenStats, advantages: Tensor) -> Tensor:
    """Return P = A T, positive where following the advantage raises the state's entropy; `advantages` may broadcast."""
    return advantages * sensitivity(stats)
