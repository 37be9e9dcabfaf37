"""CISPO: the clipped ratio as a detached weight of the log-probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from entrostat.objective.clipping import ClipBand, ClipRule
from entrostat.objective.surrogates import Objective, Surrogate, Tokens, objective


@objective("cispo")
@dataclass(frozen=True)
class Cispo(Objective):
    """CISPO: f = sg[clip(r, low, high)] ln pi. Every token keeps a gradient; the band caps its weight, for either sign.

    Source: arXiv 2506.13585, section 3.1: no lower bound in practice; verl, compute_policy_loss_cispo; TRL, loss_type
    cispo. Departs: the paper leaves the upper bound open; r <= 5 is that of arXiv 2510.13786.
    """

    rule = ClipRule.constant(lower=1.0, upper=4.0)

    @override
    def refuses(self, bands: Sequence[ClipBand]) -> str | None:
        if any(type(band).limits is not ClipBand.limits for band in bands):
            return "caps a token's weight by `bounds` for either sign of A and does not read `limits`"
        return None

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        low, high = tokens.rule.bounds(tokens.old_logp)
        weight = tokens.ratio.clamp(low, high)
        return Surrogate(weight * tokens.logp, weight, tokens.ratio < low, tokens.ratio > high)
