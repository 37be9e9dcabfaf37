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

from entrostat.objective.clipping import ClipBand, ClipRule, clip_rule

CLIP_HIGHER = ClipRule.constant(lower=0.2, upper=0.28)
CLIP_LOWER = ClipRule.constant(lower=0.1, upper=0.2)
PPO_CLIP = ClipRule.constant()


@dataclass(frozen=True, slots=True)
class DualClip(ClipBand):
    """Dual clip: another band, plus no gradient above the ratio `cap` for A < 0: max(min(r A, clip(r) A), cap A).

    Source: arXiv 1912.09729. Raises ValueError for a cap of 1 or less.
    """

    band: ClipBand = PPO_CLIP
    cap: float = 3.0

    def __post_init__(self) -> None:
        if not self.cap > 1:
            raise ValueError(f"DualClip.cap is {self.cap}; give a ratio above 1; the published value is 3")

    @property
    @override
    def per_token(self) -> bool:
        return self.band.per_token

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        return self.band.bounds(old_logp)

    @override
    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.band.limits(old_logp, advantages)
        return low, torch.where(advantages < 0, self.cap, high)


@clip_rule("dppo")
@dataclass(frozen=True)
class DppoClip(ClipBand):
    """DPPO with the binary total variation: the probability may change by delta, abs(pi - q) <= delta.

    As a ratio: 1 - delta/q <= r <= 1 + delta/q, wide for rare tokens. Source: arXiv 2602.04879.
    Raises ValueError for a delta outside (0, 1).
    """

    delta: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise ValueError(f"DppoClip.delta is {self.delta}; give a change of probability in (0, 1)")

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        width = self.delta * (-old_logp).exp()
        return (1 - width).clamp_min(0), 1 + width


@clip_rule("dcpo")
@dataclass(frozen=True)
class DcpoClip(ClipBand):
    """DCPO: .5 + .5 sqrt(max(1 - 4 lower/q, 0)) <= r <= min(.5 + .5 sqrt(1 + 4 upper/q), cap).

    Source: arXiv 2509.02333. Raises ValueError for a negative threshold and a cap below 1.
    """

    lower: float = 0.16
    upper: float = 0.2
    cap: float = 10.0

    def __post_init__(self) -> None:
        if not (self.lower >= 0 and self.upper >= 0 and self.cap >= 1):
            raise ValueError(f"DcpoClip: {self}; lower and upper must be at least 0 and cap at least 1")

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        inverse = 4 * (-old_logp).exp()
        low = 0.5 + 0.5 * (1 - self.lower * inverse).clamp_min(0).sqrt()
        high = 0.5 + 0.5 * (1 + self.upper * inverse).sqrt()
        return low, high.clamp_max(self.cap)


@clip_rule("abc")
@dataclass(frozen=True)
class AbcClip(ClipBand):
    """ABC-GRPO: a closed band for each sign, without the pessimistic minimum.

    A > 0: clip(r, 1 - e2, 1 + e1);  A <= 0: clip(r, 1 - e4, 1 + e3); `bounds` is the wider of the two. Source: arXiv
    2601.03895, all four .2. Raises ValueError for a negative threshold, or e2, e4 above 1.
    """

    e1: float = 0.2
    e2: float = 0.2
    e3: float = 0.2
    e4: float = 0.2

    def __post_init__(self) -> None:
        if not (min(self.e1, self.e3) >= 0 and 0 <= self.e2 <= 1 and 0 <= self.e4 <= 1):
            raise ValueError(f"AbcClip: {self}; e1 and e3 must be at least 0, e2 and e4 in [0, 1]")

    @property
    @override
    def per_token(self) -> bool:
        return False

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(old_logp)
        return (1 - max(self.e2, self.e4)) * one, (1 + max(self.e1, self.e3)) * one

    @override
    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(old_logp)
        rewarded = advantages > 0
        low = torch.where(rewarded, 1 - self.e2, (1 - self.e4) * one)
        return low, torch.where(rewarded, 1 + self.e1, (1 + self.e3) * one)


@dataclass(frozen=True, slots=True)
class FreeRegion(ClipBand):
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

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        return self.band.bounds(old_logp)

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
