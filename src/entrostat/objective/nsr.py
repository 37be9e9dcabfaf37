"""NSR: tokens just outside the band keep their gradient by chance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from entrostat.objective.surrogates import Clip, Objective, Surrogate, Tokens, beyond, objective


@objective("nsr")
@dataclass(frozen=True)
class Nsr(Objective):
    """Near-boundary stochastic rescue: `Clip`, but a token outside the band by at most `width` in r keeps its
    unclipped f = r with the probability `keep`, drawn from torch's global generator.

    Outside is r < low for A < 0 and r > high for A > 0; tokens beyond another limit, such as a dual clip's cap, stay
    clipped. Source: arXiv 2605.22703 for the rule. Departs: width and keep are our choice, because we found no
    published values. The authors' code was not to be had, and readings of the paper differ: some multiply r by uniform
    noise and keep a token that falls back into the band, some let the probability decay across the width.
    Raises ValueError for a negative width and a probability outside [0, 1].
    """

    width: float = 0.1
    keep: float = 0.5

    def __post_init__(self) -> None:
        if not (self.width >= 0 and 0 <= self.keep <= 1):
            raise ValueError(f"Nsr: {self}; width must be at least 0 and keep a probability")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        near = (tokens.ratio - inside.value).abs() <= self.width
        below, above = beyond(tokens, inside)
        second_side = (inside.clipped_low & ~below) | (inside.clipped_high & ~above)
        rescued = near & ~second_side & (torch.rand_like(tokens.ratio) < self.keep)
        value = tokens.ratio.where(rescued, inside.value)
        slope = tokens.ratio.where(rescued, inside.slope)
        return Surrogate(value, slope, inside.clipped_low & ~rescued, inside.clipped_high & ~rescued)
