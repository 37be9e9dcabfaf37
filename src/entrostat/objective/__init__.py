"""Clip rules, advantages and per-token objectives: pure functions of tensors."""

from entrostat.objective.bands import CLIP_HIGHER, CLIP_LOWER, AbcClip, DcpoClip, DppoClip, DualClip, FreeRegion
from entrostat.objective.clipping import ClipBand, ClipRule, LinearThreshold
from entrostat.objective.losses import PolicyLoss, aggregate, policy_loss
from entrostat.objective.regularisers import (
    adapted_coefficient,
    entropy_bonus,
    ewc_penalty,
    kl_cov_penalty,
    kl_to_reference,
)
from entrostat.objective.surrogates import (
    Bapo,
    CeGppo,
    Cispo,
    Clip,
    ClipUndetached,
    Gmpo,
    Gspo,
    Nsr,
    Objective,
    Reinforce,
    Sapo,
    Surrogate,
    Tokens,
)

__all__ = [
    "CLIP_HIGHER",
    "CLIP_LOWER",
    "AbcClip",
    "Bapo",
    "CeGppo",
    "Cispo",
    "Clip",
    "ClipBand",
    "ClipRule",
    "ClipUndetached",
    "DcpoClip",
    "DppoClip",
    "DualClip",
    "FreeRegion",
    "Gmpo",
    "Gspo",
    "LinearThreshold",
    "Nsr",
    "Objective",
    "PolicyLoss",
    "Reinforce",
    "Sapo",
    "Surrogate",
    "Tokens",
    "adapted_coefficient",
    "aggregate",
    "entropy_bonus",
    "ewc_penalty",
    "kl_cov_penalty",
    "kl_to_reference",
    "policy_loss",
]
