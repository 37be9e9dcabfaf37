"""Clip rules of other methods, as bands like `ClipRule`; their defaults are the published values.

Clip-higher and clip-lower are constant rules: CLIP_HIGHER (DAPO, arXiv 2503.14476) and CLIP_LOWER (a tighter lower
side, which raises entropy, arXiv 2509.26114; its .1 is our choice).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat._renamed import moved_names
from entrostat.objective.clipping import ChangedBand, ClipBand, ClipRule, clip_rule

CLIP_HIGHER = ClipRule.constant(lower=0.2, upper=0.28)
CLIP_LOWER = ClipRule.constant(lower=0.1, upper=0.2)
PPO_CLIP = ClipRule.constant()


@dataclass(frozen=True, slots=True)
class DualClip(ChangedBand):
    """Dual clip: another band, plus no gradient above the ratio `cap` for A < 0: max(min(r A, clip(r) A), cap A).

    Source: arXiv 1912.09729. Raises ValueError for a cap of 1 or less.
    """

    band: ClipBand = PPO_CLIP
    cap: float = 3.0

    def __post_init__(self) -> None:
        if not self.cap > 1:
            raise ValueError(f"DualClip.cap is {self.cap}; give a ratio above 1; the published value is 3")

    @override
    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.band.limits(old_logp, advantages)
        return low, torch.where(advantages < 0, self.cap, high)


@dataclass(frozen=True, slots=True)
class FreeRegion(ChangedBand):
    """Another band, in which the tokens of one region are never clipped; here likely means q > .7, rare q < .3.

    E1: likely, A > 0; E2: rare, A > 0; E3: likely, A < 0; E4: rare, A < 0. Source: the region experiment of arXiv
    2602.09782 with its heuristic for likely and rare, applied to the old probability.
    Raises ValueError for any other region.
    """

    region: Literal["E1", "E2", "E3", "E4"]
    band: ClipBand = PPO_CLIP

    def __post_init__(self) -> None:
        if self.region not in ("E1", "E2", "E3", "E4"):
            raise ValueError(f"FreeRegion.region is {self.region!r}; give 'E1', 'E2', 'E3' or 'E4'")

    @property
    @override
    def per_token(self) -> bool:
        return True  # a region is one of probabilities

    @override
    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.band.limits(old_logp, advantages)
        q = old_logp.exp()
        free = (q > 0.7 if self.region in ("E1", "E3") else q < 0.3) & (
            advantages > 0 if self.region in ("E1", "E2") else advantages < 0
        )
        return low.masked_fill(free, 0.0), high.masked_fill(free, math.inf)


@clip_rule("constant")
def _sides(upper: float = 0.2, lower: float = 0.2) -> ClipRule:
    """One band at every step and probability: 1 - lower <= r <= 1 + upper. Source: arXiv 1707.06347 (PPO), both .2."""
    return ClipRule.constant(upper=upper, lower=lower)


@clip_rule("dual-clip")
def _dual_clip(upper: float = 0.2, lower: float = 0.2, cap: float = 3.0) -> DualClip:
    """`constant`, plus no gradient above the ratio `cap` for A < 0: max(min(r A, clip(r) A), cap A).

    Source: arXiv 1912.09729.
    """
    return DualClip(_sides(upper, lower), cap)


@clip_rule("free-region")
def _free_region(region: Literal["E1", "E2", "E3", "E4"], upper: float = 0.2, lower: float = 0.2) -> FreeRegion:
    """`constant`, except that the tokens of one region are never clipped: q > .7 is likely (E1, E3), q < .3 rare.

    Source: the region experiment of arXiv 2602.09782.
    """
    return FreeRegion(region, _sides(upper, lower))


@clip_rule("clip-higher")
def _clip_higher() -> ClipRule:
    """The constant band .8 <= r <= 1.28: rare rewarded tokens may rise further. Source: arXiv 2503.14476 (DAPO)."""
    return CLIP_HIGHER


@clip_rule("clip-lower")
def _clip_lower() -> ClipRule:
    """The constant band .9 <= r <= 1.2: a tighter lower side, meant to raise the entropy.

    Source: arXiv 2509.26114; its .1 is our choice. Ours: +.007 [-.004, .017] nats against GRPO, n = 5
    (studies/entropy-strategies).
    """
    return CLIP_LOWER


__getattr__ = moved_names(
    __name__,
    {
        "AbcClip": "entrostat.objective.abc_grpo",
        "DcpoClip": "entrostat.objective.dcpo",
        "DppoClip": "entrostat.objective.dppo",
    },
)
