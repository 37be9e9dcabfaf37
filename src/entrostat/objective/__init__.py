"""Clip rules, advantages and per-token objectives: pure functions of tensors."""

from entrostat.objective import advantages
from entrostat.objective.clipping import ClipBand, ClipRule, LinearThreshold
from entrostat.objective.losses import (
    Clip,
    ClipUndetached,
    Objective,
    PolicyLoss,
    Reinforce,
    Surrogate,
    Tokens,
    aggregate,
    policy_loss,
)

__all__ = [
    "Clip",
    "ClipBand",
    "ClipRule",
    "ClipUndetached",
    "LinearThreshold",
    "Objective",
    "PolicyLoss",
    "Reinforce",
    "Surrogate",
    "Tokens",
    "advantages",
    "aggregate",
    "policy_loss",
]
