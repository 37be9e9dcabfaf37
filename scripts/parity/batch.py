"""The tokens on which a host and its steered self are compared, and how a step cuts them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from entrostat.tokens import TokenStats, token_stats

LENGTHS = (9, 2, 5, 1, 7, 3)
WIDTH = max(LENGTHS)
VOCABULARY = 11
CUTS = {  # rank -> its micro-batches, as rows
    "one batch": (((0, 1, 2, 3, 4, 5),),),
    "uneven micro-batches": (((0,), (1, 2, 3), (4, 5)),),
    "two ranks": (((0, 1), (2,)), ((3,), (4, 5))),
}


def _drawn(scale: float, seed: int, *last: int) -> Tensor:
    return scale * torch.randn(len(LENGTHS), WIDTH, *last, generator=torch.Generator().manual_seed(seed))


@dataclass
class Tokens:
    """Everything (rows, WIDTH), padded on the right with numbers that mean nothing; float32.

    old: ln pi_old; sampler: ln mu; logp: ln pi, a leaf, with ratios to old spread from .58 to 1.73. factors: of the
    advantages.
    """

    factors: Tensor | float = 1.0
    mask: Tensor = field(default_factory=lambda: torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None])
    old: Tensor = field(default_factory=lambda: (-1.5 + _drawn(1.0, 1)).clamp_max(-0.6))

    def __post_init__(self) -> None:
        order = torch.randperm(self.old.numel(), generator=torch.Generator().manual_seed(2))
        log_ratios = torch.linspace(-0.55, 0.55, self.old.numel())[order].view_as(self.old)
        self.logp = (self.old + log_ratios).requires_grad_()
        self.sampler = (self.old + _drawn(0.15, 3)).clamp_max(-1e-3)
        self.reference = (self.old + _drawn(0.2, 4)).clamp_max(-1e-3)
        advantages = _drawn(1.0, 5)[:, :1]
        self.rewards = (advantages[:, 0] > 0).float()
        self.advantages = advantages.expand(-1, WIDTH) * self.factors
        self.ids = torch.arange(self.old.numel()).view_as(self.old) % VOCABULARY

    @property
    def logits(self) -> Tensor:
        """(rows, WIDTH, VOCABULARY), of which logp are the sampled tokens'; the others share 1 - p unevenly."""
        others = _drawn(1.5, 6, VOCABULARY).scatter(-1, self.ids[..., None], -torch.inf).log_softmax(-1)
        rest = others + torch.log(-torch.expm1(self.logp))[..., None]
        return rest.scatter(-1, self.ids[..., None], self.logp[..., None])

    @property
    def entropy(self) -> Tensor:
        """H of every token, with its gradient for logp."""
        logits = self.logits
        return -(logits.exp() * logits).sum(-1)

    @property
    def stats(self) -> TokenStats:
        """The library's statistics of the logits."""
        return token_stats(self.logits.detach(), self.ids)
