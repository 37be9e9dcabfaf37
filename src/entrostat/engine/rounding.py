"""Updates that rounding swallows: weights in bfloat16 or float16 that an optimizer's step leaves unchanged.

A bfloat16 number has 8 significant bits, so w + d equals w if abs(d) is below about abs(w) / 512. AdamW moves a
weight by at most about its learning rate per step: at 1e-6 a weight of .02 never moves. Training needs weights in
float32 (master weights); the forward pass may still compute in bfloat16 (autocast).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

SHORT = (torch.bfloat16, torch.float16)
NEGLIGIBLE = 0.01


@torch.no_grad()
def swallowed_share(weights: Tensor, update: float) -> float:
    """Share, in [0, 1], of updates +update and -update that leave a weight as it was in its own dtype; any shape."""
    local = weights.to_local() if isinstance(weights, DTensor) else weights
    if not local.numel():
        return 0.0
    exact = local.double() if local.dtype == torch.float32 else local.float()
    stays = sum((exact + sign * update).to(local.dtype).eq(local).double().mean() for sign in (1, -1))
    return float(stays) / 2


def swallowed_by(optimizer: Any) -> float:
    """Share of updates of one learning rate that rounding swallows over all weights that the optimizer holds.

    A group's learning rate is the largest known, `initial_lr` of a schedule or `lr`. Float32 weights count as moved.
    """
    swallowed, total = 0.0, 0
    for group in _groups(optimizer):
        rate = max(float(group["lr"]), float(group.get("initial_lr", 0.0)))
        for weights in group["params"]:
            total += weights.numel()
            if weights.dtype in SHORT:
                swallowed += swallowed_share(weights, rate) * weights.numel()
    return swallowed / max(total, 1)


def warn_of_rounding(optimizer: Any, remedy: str) -> None:
    """Warn, with the measured share, if the optimizer holds short weights and rounding swallows over 1 % of updates."""
    held = {weights.dtype for group in _groups(optimizer) for weights in group["params"]}
    short = {str(dtype).removeprefix("torch.") for dtype in held & set(SHORT)}
    if short and (share := swallowed_by(optimizer)) > NEGLIGIBLE:
        warnings.warn(
            f"the optimizer holds weights in {', '.join(sorted(short))}: rounding swallows {share:.1%} of updates of "
            f"the size of the learning rate, so most weights may never move; {remedy}",
            stacklevel=3,
        )


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    """The parameter groups; none for a host's stand-in of an optimizer, which holds no weights."""
    return list(getattr(optimizer, "param_groups", ()))
