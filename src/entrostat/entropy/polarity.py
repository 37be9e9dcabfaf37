"""Entropy polarity: how a token's policy-gradient step changes the entropy of its own state, to first order.

A step dz = eta r A (e_a - p) on the logits z of p = softmax(z) changes the entropy H by
    dH = eta r A T + O(eta^2),    T = C - S_a,    S_a = p_a (ln p_a + H),    C = sum_x p_x^2 (ln p_x + H)
T is the sensitivity and P = A T the polarity: above 0 the entropy rises, below 0 it falls. In every state
E_{a~p}[T] = 0, so the entropy changes only if the advantage correlates with S_a. Sources: arXiv 2605.11775; the inner
product of arXiv 2602.09782, section 1, in its exact form. Every function is detached and elementwise, for any shape.

The four regions of a token by its likelihood and the sign of its advantage, after arXiv 2602.09782, section 1.

region   token    A      entropy
E1       likely   > 0    falls
E2       rare     > 0    rises
E3       likely   < 0    rises
E4       rare     < 0    falls
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

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


Convention = Literal["surprisal", "probability", "exact"]


class Region(IntEnum):
    """A token's region; NONE where the advantage is 0 or the token is neither likely nor rare."""

    NONE = 0
    E1 = 1
    E2 = 2
    E3 = 3
    E4 = 4


@torch.no_grad()
def regions(stats: TokenStats, advantages: Tensor, convention: Convention = "surprisal") -> Tensor:
    """Return the region of every token as int8, by one of three definitions of likely and rare.

    surprisal     likely: -ln p_a < H; rare: -ln p_a > H. The paper's table; where 0 < p_a (ln p_a + H) < C, E1 and
                  E3 have the wrong direction.
    probability   likely: p_a > .7; rare: p_a < .3; NONE between. The paper's heuristic; rare tokens with T < 0, which
                  occur in flat distributions, move against the direction of E2 and E4.
    exact         likely: T < 0; rare: T > 0, T the sensitivity. The direction is right to first order.
    `advantages` may broadcast. Raises ValueError for any other convention.
    """
    match convention:
        case "surprisal":
            likelihood = stats.logp + stats.entropy
        case "probability":
            p = stats.logp.exp()
            likelihood = (p > 0.7).float() - (p < 0.3).float()
        case "exact":
            likelihood = -sensitivity(stats)
        case _:
            raise ValueError(f"convention is {convention!r}; give 'surprisal', 'probability' or 'exact'")
    rewarded, punished, likely, rare = advantages > 0, advantages < 0, likelihood > 0, likelihood < 0
    labels = torch.zeros_like(likelihood, dtype=torch.int8)
    for region, member in (
        (Region.E1, likely & rewarded),
        (Region.E2, rare & rewarded),
        (Region.E3, likely & punished),
        (Region.E4, rare & punished),
    ):
        labels = labels.masked_fill(member, region)
    return labels
