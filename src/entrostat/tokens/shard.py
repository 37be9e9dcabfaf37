"""A vocabulary split over the ranks of a tensor-parallel group."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class VocabShard:
    """This rank's part of a vocabulary of `size` ids; it begins at `start`."""

    start: int
    size: int
    group: dist.ProcessGroup

    def gather(self, sums: Tensor) -> Tensor:
        """Return every rank's sums (ranks, 6, N), by one all-reduce of a tensor, zero except in this rank's slot."""
        slots = sums.new_zeros((self.group.size(), *sums.shape))
        slots[self.group.rank()] = sums
        dist.all_reduce(slots, group=self.group)
        return slots

    def add(self, partial: Tensor) -> None:
        """Sum the ranks' parts of a gradient in place, so that each rank holds the complete gradient."""
        dist.all_reduce(partial, group=self.group)
