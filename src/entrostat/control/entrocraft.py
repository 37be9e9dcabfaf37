"""Entrocraft: outside a band of the entropy, only the rewards of one sign teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("entrocraft")
@dataclass
class Entrocraft(Part):
    """Entrocraft: with entropy above a band A = max(R, 0), below it A = min(R, 0), inside it the recipe's advantages.

    R: the reward -1/+1 itself (RAFT++ above the band, NSR below it), so groups that are all right or all wrong teach
    too. Source: arXiv 2604.26326, a band whose edges fall during the run: .6 to .4 and .7 to .5; lblaoke/entrocraft,
    verl/trainer/ppo/core_algos.py, compute_grpo_range_linear_outcome_advantage. Departs: the entropy is that of the
    last step, not of the batch before its first; a trainer that gives no rewards keeps the advantages of one sign
    instead, so there such groups teach nothing.
    Raises ValueError if the lower edge is not below the upper one at the start and at the end.
    """

    needs_entropy = True

    lower: Curve = field(default_factory=lambda: Curve.between(0.6, 0.4))
    upper: Curve = field(default_factory=lambda: Curve.between(0.7, 0.5))
    _kept: str = field(default="both", init=False, repr=False)

    def __post_init__(self) -> None:
        self.lower.in_nats("Entrocraft.lower"), self.upper.in_nats("Entrocraft.upper")
        if not all(self.lower.at(share) < self.upper.at(share) for share in (0.0, 1.0)):
            raise ValueError(f"Entrocraft: {self}; the lower edge must lie below the upper one")

    @override
    def observe(self, step: Measured) -> None:
        if step.entropy > self.upper.at(step.progress):
            self._kept = "rewarded"
        else:
            self._kept = "punished" if step.entropy < self.lower.at(step.progress) else "both"

    @override
    def advantages(self, batch: TokenBatch) -> Tensor | None:
        if batch.rewards is None or self._kept == "both":
            return None
        return batch.rewards.clamp_min(0) if self._kept == "rewarded" else batch.rewards.clamp_max(0)

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        ones = torch.ones_like(batch.stats.logp)
        if batch.rewards is not None or self._kept == "both":
            return ones
        return ones * (batch.advantages > 0 if self._kept == "rewarded" else batch.advantages < 0)

    @override
    def state_dict(self) -> State:
        return {"kept": self._kept}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._kept = state["kept"]
