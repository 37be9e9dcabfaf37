"""TRL's losses as objectives of the library: what each reads of a controller, and which tokens count as clipped.

    loss_type                          importance_sampling_level   reads                              objective
    grpo, bnpo, dr_grpo, dapo, luspo   token                       two thresholds per token           Clip
    grpo, bnpo, dr_grpo, dapo, luspo   sequence (GSPO)             two thresholds per sequence        Gspo
    cispo                              token                       the largest ratio, per token       Cispo
    sapo                               token                       no threshold                       Sapo

Every one of them reads the advantages, (B, T) where tokens are weighted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entrostat.objective import Cispo, Clip, ClipBand, ClipRule, DualClip, Gspo, Objective, Sapo

CLIPPED_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
_MOST_LOG_FACTOR = 80.0  # exp of it, and of its negative, are float32 numbers


def objective_of(args: Any) -> Objective | None:
    """The objective that TRL's loss computes under these settings; None for one that the library does not have."""
    per_token = args.importance_sampling_level == "token"
    if args.loss_type in CLIPPED_LOSSES:
        return Clip() if per_token else Gspo()
    if args.loss_type == "cispo" and per_token:
        return Cispo()
    if args.loss_type == "sapo" and per_token:
        return Sapo(args.sapo_temperature_pos, args.sapo_temperature_neg)
    return None


def own_band(args: Any, objective: Objective) -> ClipBand:
    """The constant band of TRL's own epsilon and epsilon_high."""
    low, high = args.epsilon, args.epsilon if args.epsilon_high is None else args.epsilon_high
    if isinstance(objective, Cispo):
        return ClipRule.constant(1.0, max(high - 1, 0.0))  # TRL's epsilon_high is the largest ratio itself
    return ClipRule.constant(low, high)


def counted_band(args: Any, objective: Objective, band: ClipBand) -> ClipBand:
    """The band with TRL's dual clip, where its loss has one."""
    return DualClip(band, args.delta) if args.delta is not None and isinstance(objective, Clip | Gspo) else band


@torch.no_grad()
def thresholds(objective: Objective, band: ClipBand, old_logp: Tensor) -> tuple[Tensor, Tensor]:
    """What TRL's loss is to read as epsilon_low and epsilon_high, given ln pi_old (B, T).

    (1 - low, high - 1) of each token's band, (B, T), or of each sequence's, (B, 1); for CISPO high itself.
    """
    low, high = band.bounds(old_logp[:, :1] if isinstance(objective, Gspo) else old_logp)
    return 1 - low, high if isinstance(objective, Cispo) else high - 1


@torch.no_grad()
def raised_to_lower_bound(band: ClipBand, log_ratio: Tensor, old_logp: Tensor) -> Tensor | None:
    """max(1, low / r): the factor of the advantages (B, T) that gives TRL's CISPO the band's lower bound.

    TRL caps r from above only; times this factor, min(r, high) becomes clip(r, low, high). None: no lower bound.
    """
    low, _ = band.bounds(old_logp)
    if not bool((low > 0).any()):
        return None
    return (low.log() - log_ratio).clamp(0, _MOST_LOG_FACTOR).exp()
