"""ASPO: the ratio turned around for rewarded tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from entrostat.objective.clipping import ClipBand
from entrostat.objective.surrogates import Clip, Objective, Surrogate, Tokens, objective


@objective("aspo")
@dataclass(frozen=True)
class Aspo(Objective):
    """ASPO: A > 0: f = r / sg[r^2], so tokens that have not risen yet learn more;  A <= 0: f = r.

    The band cuts as PPO's does, above `high` (A > 0) and below `low` (A < 0). The weight of a token, 1/r or r, is
    softly limited to `cap`: beyond it f = cap ln pi, which keeps the gradient.
    Source: arXiv 2510.06062; wizard-III/Archer2.0, verl/trainer/ppo/core_algos.py, compute_policy_loss_archer, cap 3.
    Departs: the code has the thresholds .2 for the tokens with the lowest 80 % of the entropy and .4 for the others;
    an objective does not see the entropy, so the band is one for all, .2 by default.
    Raises ValueError for a cap of 1 or less.
    """

    cap: float = 3.0

    def __post_init__(self) -> None:
        if not self.cap > 1:
            raise ValueError(f"Aspo.cap is {self.cap}; give a weight above 1; the published value is 3")

    @override
    def refuses(self, bands: Sequence[ClipBand]) -> str | None:
        if any(type(band).limits is not ClipBand.limits for band in bands):
            return "has a dual clip of its own and clips one side for each sign of A"
        return None

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        rewarded = tokens.advantages > 0
        weight = inside.value.reciprocal().where(rewarded, inside.value)
        live = ~(inside.clipped_low | inside.clipped_high)
        capped = weight > self.cap
        value = (self.cap * tokens.logp).where(capped, weight)
        slope = weight.clamp_max(self.cap) * live
        return Surrogate(value, slope, inside.clipped_low, inside.clipped_high)
