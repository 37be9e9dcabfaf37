"""Clip rules, advantages and per-token objectives: pure functions of tensors."""

from entrostat.objective import advantages
from entrostat.objective.bands import CLIP_HIGHER, CLIP_LOWER, AbcClip, DcpoClip, DppoClip, DualClip
from entrostat.objective.clipping import ClipBand, ClipRule, LinearThreshold
from entrostat.objective.losses import ObjectiveName, PolicyLoss, aggregate, policy_loss
from entrostat.objective.regularisers import entropy_bonus, kl_cov_penalty
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
    "Gmpo",
    "Gspo",
    "LinearThreshold",
    "Nsr",
    "Objective",
    "ObjectiveName",
    "PolicyLoss",
    "Reinforce",
    "Sapo",
    "Surrogate",
    "Tokens",
    "advantages",
    "aggregate",
    "entropy_bonus",
    "kl_cov_penalty",
    "policy_loss",
]
