"""A policy small enough to know everything about: softmax states trained by group-relative policy gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from entrostat.entropy import polarity
from entrostat.tokens import token_stats


def entropy_of(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits) (..., V)."""
    return torch.special.entr(logits.softmax(-1)).sum(-1)


class ToyPolicy:
    """`states` distributions over `vocab` tokens; in each about a fifth of the tokens is rewarded.

    The logits are features @ weights: a table with one feature a state, shared parameters with fewer features.
    """

    def __init__(self, states: int = 16, vocab: int = 20, features: int | None = None, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(states, features or states, generator=self.generator, dtype=torch.float64)
        self.features = drawn / math.sqrt(features) if features else torch.eye(states, dtype=torch.float64)
        self.weights = torch.randn(self.features.shape[1], vocab, generator=self.generator, dtype=torch.float64)
        self.good = torch.rand(states, vocab, generator=self.generator) < 0.2

    @property
    def logits(self) -> Tensor:
        """(states, vocab)."""
        return self.features @ self.weights

    @property
    def entropy(self) -> float:
        """Mean entropy of the states in nats."""
        return entropy_of(self.logits).mean().item()

    @property
    def reward(self) -> float:
        """The probability of a rewarded token, mean over states."""
        return (self.logits.softmax(-1) * self.good).sum(-1).mean().item()

    def step(self, branch: str = "both", rate: float = 1.0, group: int = 16) -> tuple[float, float]:
        """One update by the tokens of a branch (both, expanding, contracting) of `group` samples a state.

        Returns the summed flow of these tokens and the true change of the mean entropy.
        """
        logits, before = self.logits, self.entropy
        p = logits.softmax(-1)
        ids = torch.multinomial(p, group, replacement=True, generator=self.generator)
        reward = self.good.gather(1, ids).double()
        advantages = (reward - reward.mean(-1, keepdim=True)) / (reward.std(-1, keepdim=True) + 1e-6)
        flow = polarity(token_stats(logits[:, None].expand(-1, group, -1), ids), advantages)
        kept = {"both": flow == flow, "expanding": flow > 0, "contracting": flow < 0}[branch]
        score = torch.nn.functional.one_hot(ids, p.shape[1]) - p[:, None]
        pull = ((advantages * kept)[..., None] * score).mean(1)
        self.weights = self.weights + rate * self.features.T @ pull
        return (flow * kept).sum().item(), self.entropy - before
