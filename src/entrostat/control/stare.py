"""STARE: other weights for the most surprising tokens while the entropy is low."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("stare")
@dataclass
class Stare(Part):
    """STARE: while the last entropy is below `target`, the most surprising of the rewarded tokens (A > 0) weigh
    `weight`: ceil(share n) of n, at least one. All others weigh 1.

    variant "C2": those of the punished tokens (A < 0) weigh `punished` as well; "O1": they do not.
    adaptive: both weights start at their settings; at each step below the target `weight` rises by `step` up to `most`
    and `punished` falls by it down to `least`, above it the reverse, never past 1. The target gates them all the same.
    Source: arXiv 2606.19236, section 4; hp-luo/STARE, verl/trainer/ppo/core_algos.py, STAREController and
    compute_stare_token_weights. Departs: the gate compares the entropy of the last step, not of the batch before its
    first step, and is closed until one is measured.
    Raises ValueError for a share outside (0, 1], weights on the wrong side of 1, and another variant.
    """

    needs_entropy = True

    share: float = 0.1
    weight: float = 1.1
    target: float = 0.3
    adaptive: bool = False
    step: float = 0.01
    most: float = 1.5
    variant: Literal["O1", "C2"] = "O1"
    punished: float = 0.9
    least: float = 0.5
    _open: bool = field(default=False, init=False, repr=False)
    _weight: float = field(default=1.0, init=False, repr=False)
    _punished: float = field(default=1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 1 <= self.weight <= self.most and 0 <= self.least <= self.punished <= 1):
            raise ValueError(
                f"Stare: {self}; share must be in (0, 1], 1 <= weight <= most and 0 <= least <= punished <= 1"
            )
        if self.variant not in ("O1", "C2"):
            raise ValueError(f"Stare.variant is {self.variant!r}; give 'O1' or 'C2'")
        self._weight, self._punished = self.weight, self.punished
        self._curve = Curve.constant(self.target)

    @override
    def observe(self, step: Measured) -> None:
        self._open = step.entropy < self.target
        if self.adaptive and step.entropy != self.target:
            move = math.copysign(self.step, self.target - step.entropy)
            self._weight = min(max(self._weight + move, 1.0), self.most)
            self._punished = min(max(self._punished - move, self.least), 1.0)

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        weights = torch.ones_like(batch.stats.logp)
        if not self._open:
            return weights
        advantages = batch.advantages.expand_as(weights)
        weights = weights.masked_fill(self._surprising(batch, advantages > 0), self._weight)
        if self.variant == "C2":
            weights = weights.masked_fill(self._surprising(batch, advantages < 0), self._punished)
        return weights

    def _surprising(self, batch: TokenBatch, among: Tensor) -> Tensor:
        """The share of the tokens `among` with the largest surprisal."""
        among = among & batch.mask
        count = math.ceil(self.share * int(among.sum()) - 1e-6)
        found = torch.zeros_like(among)
        if count == 0:
            return found
        largest = (-batch.stats.logp).masked_fill(~among, -math.inf).flatten().topk(count).indices
        return found.flatten().index_fill(0, largest, True).view_as(found)

    @override
    def state_dict(self) -> State:
        return {"open": self._open, "weight": self._weight, "punished": self._punished}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._open = state.get("open", state["weight"] > 1)
        self._weight, self._punished = state["weight"], state.get("punished", self.punished)
