"""GEPO: the entropy of a group decides whether its rewarded or its punished tokens weigh less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("gepo")
@dataclass
class Gepo(Part):
    """GEPO: rewarded tokens weigh `rewarded` in groups of low entropy, punished ones `punished` in those of high.

    H_g = -(sum of ln pi_old over the group's tokens) / their number, an estimate from the sampled tokens. Low is
    H_g < low, high H_g > high. With mu and sigma the mean and deviation of H_g over the groups of a batch,
        low <- (1 - rate) low + rate (mu - below sigma),    high <- (1 - rate) high + rate (mu + above sigma)
    after each step; the first batch sets both. A group is `group_size` consecutive rows of padded (B, T) tokens.
    Source: arXiv 2607.16850, equations 4 and 7 to 9: .5, .2, .2, .3, rate .01. Departs: the statistics are those of the
    tokens given last, a whole batch in the embedded engine; the authors' code was not to be had.
    Raises ValueError for settings out of range, packed tokens, and rows that do not form whole groups.
    """

    group_size: int
    rewarded: float = 0.5
    punished: float = 0.2
    below: float = 0.2
    above: float = 0.3
    rate: float = 0.01
    _edges: tuple[float, float] | None = field(default=None, init=False, repr=False)
    _seen: tuple[float, float] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.group_size >= 1 and 0 <= self.punished <= self.rewarded <= 1):
            raise ValueError(f"Gepo: {self}; it needs group_size >= 1 and 0 <= punished <= rewarded <= 1")
        if not (self.below >= 0 and self.above >= 0 and 0 < self.rate <= 1):
            raise ValueError(f"Gepo: {self}; it needs below and above at least 0 and rate in (0, 1]")

    @override
    def observe(self, step: Measured) -> None:
        if self._seen is None:
            return
        past = self._edges or self._seen
        low, high = ((1 - self.rate) * old + self.rate * new for old, new in zip(past, self._seen, strict=True))
        self._edges, self._seen = (low, high), None

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        entropy = self._entropy(batch)
        self._seen = self._edges_of(entropy)
        low, high = self._edges or self._seen
        by_row = entropy.repeat_interleave(self.group_size)[:, None]
        weights = torch.ones_like(batch.stats.logp)
        weights = weights.masked_fill((by_row < low) & (batch.advantages > 0), self.rewarded)
        return weights.masked_fill((by_row > high) & (batch.advantages < 0), self.punished)

    def _entropy(self, batch: TokenBatch) -> Tensor:
        """H_g of each group, nats."""
        mask = batch.mask
        if mask.dim() != 2 or len(mask) % self.group_size:
            raise ValueError(
                f"Gepo: tokens of shape {tuple(mask.shape)} do not form whole groups of {self.group_size} rows; "
                "give padded (B, T) tokens with the rows of a group in sequence"
            )
        groups = len(mask) // self.group_size
        surprisal, tokens = (x.reshape(groups, -1).sum(1) for x in (-batch.old_logp.where(mask, 0), mask))
        return surprisal / tokens.clamp_min(1)

    def _edges_of(self, entropy: Tensor) -> tuple[float, float]:
        mean, deviation = float(entropy.mean()), float(entropy.std(unbiased=False))
        return mean - self.below * deviation, mean + self.above * deviation

    @override
    def state_dict(self) -> State:
        return {"edges": None if self._edges is None else list(self._edges)}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._edges = tuple(state["edges"]) if state.get("edges") else None
