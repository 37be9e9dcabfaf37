"""GRPODropout: likely rewarded completions are left out of the update."""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat.objective.advantages import advantage, grpo


@advantage("grpo-dropout")
def grpo_dropout(rewards: Tensor, surprisals: Tensor, epsilon: float = 1e-6) -> Tensor:
    """GRPODropout: GRPO's advantages without the likely rewarded completions of a group, centred anew.

    s: mean of -ln pi_old over a completion's tokens (`surprisals`, of the shape of `rewards`), h = A (s - mean s) / G.
    1. While the sum of h over the kept is below 0, drop the completion with the lowest h.
    2. Take back those with A <= 0.
    3. A <- A - b over the kept, with b the mean of A weighted by exp(-s); the dropped have 0.
    The estimated entropy does not fall by the update of the first step. Source: arXiv 2610.11854, equations 2, 4, 7 and
    9, with log-probabilities per token; hexuandeng/GRPODropout, verl/examples/grpo_dropout/selector_methods.py, variant
    balance_neg (balance leaves step 2 out). Departs: a dropped completion still counts in the loss's denominator; the
    authors keep at least a quarter of a group, and drop until the sum is above 0, while 0 is enough here.
    Raises ValueError for surprisals of another shape.
    """
    if surprisals.shape != rewards.shape:
        raise ValueError(
            f"surprisals: shape {tuple(surprisals.shape)}, rewards {tuple(rewards.shape)}; give one per completion"
        )
    native = grpo(rewards, epsilon)
    present = ~rewards.isnan()
    surprisals = surprisals.where(present, float("nan"))
    flow = (native * (surprisals - surprisals.nanmean(-1, keepdim=True))).nan_to_num(nan=0.0)
    order = flow.argsort(-1)
    ascending = flow.gather(-1, order)
    left = ascending.flip(-1).cumsum(-1).flip(-1)  # the sum of h over this completion and all after it
    dropped = (left < 0) & (ascending < 0)
    kept = torch.ones_like(dropped).scatter(-1, order, ~dropped) | (native <= 0)
    kept &= present
    weight = (
        (-surprisals).nan_to_num(nan=float("-inf")).masked_fill(~kept, float("-inf")).softmax(-1).nan_to_num(nan=0.0)
    )
    centre = (weight * native).sum(-1, keepdim=True)
    return (native - centre).where(kept, 0)
