"""The tokens on which a host and its steered self are compared, and how a step cuts them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

LENGTHS = (9, 2, 5, 1, 7, 3)
WIDTH = max(LENGTHS)
CUTS = {  # rank -> its micro-batches, as rows
    "one batch": (((0, 1, 2, 3, 4, 5),),),
    "uneven micro-batches": (((0,), (1, 2, 3), (4, 5)),),
    "two ranks": (((0, 1), (2,)), ((3,), (4, 5))),
}


def _drawn(scale: float, seed: int) -> Tensor:
    return scale * torch.randn(len(LENGTHS), WIDTH, generator=torch.Generator().manual_seed(seed))


@dataclass
class Tokens:
    """Everything (rows, WIDTH), padded on the right with numbers that mean nothing; float32.

    old: ln pi_old; sampler: ln mu; logp: ln pi, a leaf, with ratios to old spread from .58 to 1.73.
    """

    mask: Tensor = field(default_factory=lambda: torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None])
    old: Tensor = field(default_factory=lambda: (-1.5 + _drawn(1.0, 1)).clamp_max(-0.6))

    def __post_init__(self) -> None:
        order = torch.randperm(self.old.numel(), generator=torch.Generator().manual_seed(2))
        log_ratios = torch.linspace(-0.55, 0.55, self.old.numel())[order].view_as(self.old)
        self.logp = (self.old + log_ratios).requires_grad_()
        self.sampler = (self.old + _drawn(0.15, 3)).clamp_max(-1e-3)
        self.reference = (self.old + _drawn(0.2, 4)).clamp_max(-1e-3)
        self.advantages = _drawn(1.0, 5)[:, :1].expand(-1, WIDTH)
        self.rewards = (self.advantages[:, 0] > 0).float()
