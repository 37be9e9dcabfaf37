"""GMPO: the geometric mean of the clipped token ratios of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from typing_extensions import override

from entrostat.objective.clipping import ClipRule
from entrostat.objective.sequences import sequence_mean
from entrostat.objective.surrogates import Clip, Objective, Surrogate, Tokens, objective


@objective("gmpo")
@dataclass(frozen=True)
class Gmpo(Objective):
    """GMPO: the geometric mean over the sequence of its clipped token ratios, g = exp(mean ln clip(r)).

    f = g, with no gradient through a clipped token. Aggregate by "sequence-mean" with one advantage per sequence.
    Source: arXiv 2507.20673, the wide band exp(-.4) to exp(.4); callsys/GMPO, train_zero_math_gmpo.py; verl,
    compute_policy_loss_geo_mean. Departs: none.
    """

    rule = ClipRule.constant(lower=1 - math.exp(-0.4), upper=math.exp(0.4) - 1)
    aggregations = ("sequence-mean",)

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        mean = sequence_mean(inside.value.log(), tokens.mask, tokens.sequences).exp()
        live = ~(inside.clipped_low | inside.clipped_high)
        return Surrogate(mean, mean * live, inside.clipped_low, inside.clipped_high)
