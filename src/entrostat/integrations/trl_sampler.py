"""The order of TRL's prompts, the same in a run that was resumed.

TRL draws the order of each epoch from one generator that begins with the run's seed, and does not keep its state: a run
resumed in a later epoch begins with the order of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class OrderOfEpoch(Sampler[int]):
    """TRL's shuffling RepeatSampler; once it is told the epoch, its order is that of an undisturbed run's."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def set_epoch(self, epoch: int) -> None:
        """Go to the order of `epoch`, the first is 0; transformers' Trainer calls it before each."""
        generator: torch.Generator = self.plain.generator
        generator.manual_seed(self.plain.seed)
        for _ in range(epoch):
            torch.randperm(self.plain.num_samples, generator=generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)
