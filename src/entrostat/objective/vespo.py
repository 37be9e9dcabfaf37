"""VESPO: a smooth weight of the sequence's ratio."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from entrostat.objective.sequences import sequence_sum
from entrostat.objective.surrogates import Objective, Surrogate, Tokens, objective, unclipped

LOG_LIMIT = 20.0  # nats, for each token and for the sequence, as in the authors' code
LOWEST = 1e-8


@objective("vespo")
@dataclass(frozen=True)
class Vespo(Objective):
    """VESPO: f = sg[phi(W)] ln pi with W = prod r of the sequence and phi(W) = W^k exp(lambda (1 - W)); no band.

    phi(1) = 1; it falls to 0 for W far from 1 on either side. k and lambda by the sign of A.
    Source: arXiv 2602.10693; FloyedShen/VESPO, recipe/vespo/code/core_algos.py, with k 2 and lambda 3 for A >= 0, k 3
    and lambda 2 for A < 0, and ln W limited to 20. Departs: none.
    Raises ValueError for a negative setting.
    """

    banded = False

    k_rewarded: float = 2.0
    lambda_rewarded: float = 3.0
    k_punished: float = 3.0
    lambda_punished: float = 2.0

    def __post_init__(self) -> None:
        settings = (self.k_rewarded, self.lambda_rewarded, self.k_punished, self.lambda_punished)
        if not all(setting >= 0 for setting in settings):
            raise ValueError(f"Vespo: {self}; all four settings must be at least 0")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        log_ratio = tokens.log_ratio.clamp(-LOG_LIMIT, LOG_LIMIT)
        weight = sequence_sum(log_ratio, tokens.sequences).clamp(-LOG_LIMIT, LOG_LIMIT).exp()
        one, rewarded = torch.ones_like(weight), tokens.advantages >= 0
        k = torch.where(rewarded, self.k_rewarded * one, self.k_punished)
        decay = torch.where(rewarded, self.lambda_rewarded * one, self.lambda_punished)
        phi = (k * weight.clamp_min(LOWEST).log() + decay * (1 - weight)).exp()
        return unclipped(tokens, phi * tokens.logp, phi)
