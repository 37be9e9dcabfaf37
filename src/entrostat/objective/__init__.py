"""Clip rules, advantages and per-token objectives: pure functions of tensors."""

from entrostat.objective.abc_grpo import AbcClip
from entrostat.objective.aspo import Aspo
from entrostat.objective.bands import CLIP_HIGHER, CLIP_LOWER, DualClip, FreeRegion
from entrostat.objective.bapo import Bapo
from entrostat.objective.ce_gppo import CeGppo
from entrostat.objective.cispo import Cispo
from entrostat.objective.clipping import ClipBand, ClipRule, LinearThreshold
from entrostat.objective.corrections import (
    Correction,
    Decoupled,
    Estr,
    IcePop,
    Mis,
    Opsm,
    SampledTokens,
    SeqMaskTis,
    Tis,
)
from entrostat.objective.cppo import Cppo
from entrostat.objective.dcpo import DcpoClip
from entrostat.objective.dppo import Dppo, DppoClip, divergence_drift
from entrostat.objective.drpo import Drpo
from entrostat.objective.gmpo import Gmpo
from entrostat.objective.gspo import Gspo
from entrostat.objective.losses import PolicyLoss, aggregate, policy_loss
from entrostat.objective.luspo import Luspo
from entrostat.objective.nsr import Nsr
from entrostat.objective.regularisers import (
    adapted_coefficient,
    entropy_bonus,
    ewc_penalty,
    kl_cov_penalty,
    kl_to_reference,
)
from entrostat.objective.ripo import RipoClip
from entrostat.objective.sapo import Sapo
from entrostat.objective.surrogates import (
    Clip,
    ClipUndetached,
    Objective,
    Reinforce,
    Surrogate,
    Tokens,
)
from entrostat.objective.up import Up
from entrostat.objective.vespo import Vespo

__all__ = [
    "CLIP_HIGHER",
    "CLIP_LOWER",
    "AbcClip",
    "Aspo",
    "Bapo",
    "CeGppo",
    "Cispo",
    "Clip",
    "ClipBand",
    "ClipRule",
    "ClipUndetached",
    "Correction",
    "Cppo",
    "DcpoClip",
    "Decoupled",
    "Dppo",
    "DppoClip",
    "Drpo",
    "DualClip",
    "Estr",
    "FreeRegion",
    "Gmpo",
    "Gspo",
    "IcePop",
    "LinearThreshold",
    "Luspo",
    "Mis",
    "Nsr",
    "Objective",
    "Opsm",
    "PolicyLoss",
    "Reinforce",
    "RipoClip",
    "SampledTokens",
    "Sapo",
    "SeqMaskTis",
    "Surrogate",
    "Tis",
    "Tokens",
    "Up",
    "Vespo",
    "adapted_coefficient",
    "aggregate",
    "divergence_drift",
    "entropy_bonus",
    "ewc_penalty",
    "kl_cov_penalty",
    "kl_to_reference",
    "policy_loss",
]
