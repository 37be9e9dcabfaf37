"""CPPO: DPPO whose tokens share a budget along the sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.objective.sequences import before, sequence_quantile, sequence_sum
from entrostat.objective.surrogates import Objective, Surrogate, Tokens, objective


@objective("cppo")
@dataclass(frozen=True)
class Cppo(Objective):
    """CPPO: f = r where the token moves towards the sampler or within its budget, else 0.

    D = abs(p - q) of a token, q the sampler's probability; w falls linearly from 1 at a completion's first token to
    `least` at its last; S and W are the sums of w D and of w over the tokens before it. Within the budget is
        w D <= min(delta, delta + budget W - S),
    so a completion whose prefix has moved by more than `budget` on average has less left. adaptive: the budget of a
    completion is the 90th percentile of its D, within [budget, 2 budget], as the authors do for base models.
    Source: arXiv 2606.10968, eq. 8 to 10: delta .15 (.2 for a mixture of experts), least .8, budget .015;
    Tencent-Hunyuan/UniRL, unirl/algorithms/cppo.py, adaptive with delta .2 and budget .02.
    Departs: the divergence over the 20 likeliest tokens becomes that of the sampled token, which the paper's figure 6
    finds as good. Raises ValueError for delta outside (0, 1), least outside (0, 1] and budget < 0.
    """

    banded = False
    anchored = True

    delta: float = 0.15
    budget: float = 0.015
    least: float = 0.8
    adaptive: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.delta < 1 and self.budget >= 0 and 0 < self.least <= 1):
            raise ValueError(f"Cppo: {self}; it needs delta in (0, 1), budget >= 0 and least in (0, 1]")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        moved = (tokens.logp.exp() - tokens.old_logp.exp()).abs()
        outside = moved * (weight := self._weights(tokens)) > self._allowed(tokens, moved, weight)
        removed = outside & (tokens.advantages * tokens.log_ratio > 0) & tokens.mask
        ratio = tokens.ratio.masked_fill(removed, 0)
        return Surrogate(ratio, ratio, removed & (tokens.advantages < 0), removed & (tokens.advantages > 0))

    def _weights(self, tokens: Tokens) -> Tensor:
        count = tokens.mask.to(tokens.logp.dtype)
        length = sequence_sum(count, tokens.sequences)
        done = before(count, tokens.sequences) / (length - 1).clamp_min(1)
        return (1 - (1 - self.least) * done) * count

    def _allowed(self, tokens: Tokens, moved: Tensor, weight: Tensor) -> Tensor:
        budget = torch.full_like(moved, self.budget)
        if self.adaptive:
            budget = sequence_quantile(moved, tokens.mask, tokens.sequences, 0.9).clamp(self.budget, 2 * self.budget)
        spent, given = (before(x, tokens.sequences) for x in (weight * moved, weight))
        return (self.delta + budget * given - spent).clamp_max(self.delta)
