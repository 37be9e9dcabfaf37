"""The four regions of a token by its likelihood and the sign of its advantage, after arXiv 2602.09782, section 1.

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

from entrostat.entropy.polarity import sensitivity
from entrostat.tokens import TokenStats

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
