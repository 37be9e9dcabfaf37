"""Entrocraft: rewarded or punished tokens are dropped while the entropy is outside a band."""

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
    """Entrocraft: with entropy above a band only rewarded tokens learn, below it only punished ones, inside it all.

    Source: arXiv 2604.26326, a band whose edges fall during the run: .6 to .4 and .7 to .5. Raises ValueError if the
    lower edge is not below the upper one at the start and at the end.
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
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        keep = {"both": advantages == advantages, "rewarded": advantages > 0, "punished": advantages < 0}[self._kept]
        return keep.to(stats.logp.dtype).expand_as(stats.logp)

    @override
    def state_dict(self) -> State:
        return {"kept": self._kept}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._kept = state["kept"]
