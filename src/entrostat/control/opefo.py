"""OPEFO: weights of zero net entropy flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.control.reweighting import by_polarity
from entrostat.entropy import polarity


@weighting("opefo")
@dataclass
class Opefo(Part):
    """OPEFO: weights 1 + lambda on expanding and 1 - lambda on contracting tokens, so that the net flow is zero:
        lambda = (D - U) / (D + U),   U, D: sums of P over expanding and of abs(P) over contracting tokens.
    lambda lies in [-1, 1]; `bound` limits abs(lambda). As in the paper for one optimizer step per rollout batch, unless
    off_policy: later the ratios and clips shift the flow. Source: arXiv 2605.11491, equations 7 to 9. Departs: P is
    exact, A (C - S), where the paper takes a simplified one; the authors' code was not to be had.
    Raises ValueError for a bound outside (0, 1].
    """

    bound: float = 1.0
    off_policy: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.bound <= 1:
            raise ValueError(f"Opefo.bound is {self.bound}; give a number in (0, 1]")

    @property
    @override
    def on_policy(self) -> bool:  # type: ignore[override]
        """Whether only one optimizer step per rollout batch is allowed."""
        return not self.off_policy

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        flow = polarity(stats, advantages)
        net, size = flow[mask].sum(), flow[mask].abs().sum()
        balance = (-net / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp(-self.bound, self.bound)
        return by_polarity(flow, 1 + balance, 1 - balance)
