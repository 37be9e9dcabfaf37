"""The tokens of one region without a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch, weighting
from entrostat.entropy import Convention, Region, regions


@weighting("skip-region")
@dataclass
class SkipRegion(Part):
    """No gradient on the tokens of one region E1-E4, by a convention of `entropy.regions`; all others are unchanged.

    Prediction: skipping E1 or E4 raises the entropy against the same run without a mask; skipping E2 or E3 lowers it.
    Source: the region experiment of arXiv 2602.09782, which clips one region's tokens at a time. Ours, n = 5: E1 +.078
    [.060, .097], E2 -.012 [-.020, -.004], E3 -.033 [-.040, -.026], E4 +.007 [.002, .012] nats (studies/regions).
    Raises ValueError for any other region or convention.
    """

    region: Literal["E1", "E2", "E3", "E4"]
    convention: Convention = "surprisal"

    def __post_init__(self) -> None:
        if self.region not in ("E1", "E2", "E3", "E4"):
            raise ValueError(f"SkipRegion.region is {self.region!r}; give 'E1', 'E2', 'E3' or 'E4'")
        if self.convention not in get_args(Convention):
            raise ValueError(
                f"SkipRegion.convention is {self.convention!r}; give {', '.join(map(repr, get_args(Convention)))}"
            )

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        skipped = regions(stats, advantages, self.convention) == Region[self.region]
        return (~skipped).to(stats.logp.dtype)
