"""GSPO: the clip on the ratio of the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.objective.clipping import ClipBand, ClipRule
from entrostat.objective.sequences import sequence_mean
from entrostat.objective.surrogates import Aggregation, Objective, Surrogate, Tokens, objective

WIDEST = 0.05  # half-width of a band on a sequence's ratio, which is about 1e-3 from 1; wider ones never clip


@objective("gspo")
@dataclass(frozen=True)
class Gspo(Objective):
    """GSPO: the clip on the ratio of the sequence, s = (pi(y)/pi_old(y))^(1/length): f = s pi / sg[pi] within the band.

    Aggregate by "sequence-mean" with one advantage per sequence: the gradient is that of min(s A, clip(s) A).
    A band that depends on the probability is taken at the geometric mean of the sequence's, pi_old(y)^(1/length).
    Source: arXiv 2507.18071, section 4, bands 3e-4 below and 4e-4 above; verl, compute_policy_loss_gspo; TRL,
    importance_sampling_level sequence. Departs: none; the bands that move or depend on the probability are ours.
    """

    rule = ClipRule.constant(lower=3e-4, upper=4e-4)
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence-mean",)

    @override
    def refuses(self, bands: Sequence[ClipBand]) -> str | None:
        widths = [_width(band) for band in bands]
        if any(width > WIDEST for width in widths):
            return f"clips a sequence's ratio, which a band of {max(widths):.2g} never does; scale it to about .0004"
        return None

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        old_logp, log_ratio = (
            sequence_mean(x, tokens.mask, tokens.sequences) for x in (tokens.old_logp, tokens.log_ratio)
        )
        low, high = tokens.rule.limits(old_logp, tokens.advantages)
        ratio = log_ratio.exp()
        below, above = ratio < low, ratio > high
        return Surrogate(ratio.clamp(low, high), ratio.masked_fill(below | above, 0), below, above)


def _width(band: ClipBand) -> float:
    """The largest distance of a bound from 1 that the band has on the side of PPO's clip, for q from .05 to 1."""
    old_logp = torch.linspace(0.05, 1.0, 20).log()
    low, high = band.bounds(old_logp)
    widths: Tensor = torch.maximum(1 - low, high - 1)
    return float(widths.max())
