"""UP: rewarded tokens learn without a bound, punished ones under the clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from entrostat.objective.bands import DualClip
from entrostat.objective.surrogates import Clip, Objective, Surrogate, Tokens, objective


@objective("up")
@dataclass(frozen=True)
class Up(Objective):
    """UP: A > 0: f = pi / sg[pi], the policy gradient without ratio and bound;  A <= 0: `Clip`.

    Rare rewarded tokens rise further, whatever pi_old was. The band, .2 with a dual clip of 3, holds for punished ones.
    Source: arXiv 2607.06987, eq. 15; verl, pull request 7022, compute_policy_loss_up. Departs: none.
    """

    rule = DualClip()

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        free = tokens.advantages > 0
        one = torch.ones_like(tokens.ratio)
        return Surrogate(
            one.where(free, inside.value),
            one.where(free, inside.slope),
            inside.clipped_low & ~free,
            inside.clipped_high & ~free,
        )
