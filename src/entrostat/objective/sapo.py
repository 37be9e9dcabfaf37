"""SAPO: a soft gate instead of the clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from entrostat.objective.surrogates import Objective, Surrogate, Tokens, objective, unclipped


@objective("sapo")
@dataclass(frozen=True)
class Sapo(Objective):
    """SAPO, a soft gate instead of the clip: f = 4/tau sigmoid(tau (r - 1)), tau by the sign of A; no band.

    Aggregate by "sequence-mean". Source: arXiv 2511.20347; verl, compute_policy_loss_sapo. Departs: none.
    Raises ValueError for a tau that is not positive.
    """

    banded = False
    aggregations = ("sequence-mean",)

    tau_rewarded: float = 1.0
    tau_punished: float = 1.05

    def __post_init__(self) -> None:
        if not (self.tau_rewarded > 0 and self.tau_punished > 0):
            raise ValueError(f"Sapo: {self}; both temperatures must be positive")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        one = torch.ones_like(tokens.ratio)
        tau = torch.where(tokens.advantages > 0, self.tau_rewarded * one, self.tau_punished)
        gate = torch.sigmoid(tau * (tokens.ratio - 1))
        return unclipped(tokens, 4 / tau * gate, 4 * gate * (1 - gate) * tokens.ratio)
