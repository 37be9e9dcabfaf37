"""The order of TRL's prompts, the same in a run that was resumed.

TRL draws the order of each epoch from one generator seeded with the run's seed, and does not save its state: a run
resumed in a later epoch starts with the order of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class OrderOfEpoch(Sampler[int]):
    """TRL's shuffling RepeatSampler; after `set_epoch`, its order is that of an uninterrupted run."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def set_epoch(self, epoch: int) -> None:
        """Set the order of `epoch`, counted from 0; transformers' Trainer calls it before each epoch."""
        generator: torch.Generator = self.plain.generator
        generator.manual_seed(self.plain.seed)
        for _ in range(epoch):
            torch.randperm(self.plain.num_samples, generator=generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)
