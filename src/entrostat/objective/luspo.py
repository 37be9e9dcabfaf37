"""LUSPO: GSPO whose sequences weigh by their length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from entrostat.objective.clipping import ClipRule
from entrostat.objective.gspo import Gspo
from entrostat.objective.surrogates import Aggregation, objective


@objective("luspo")
@dataclass(frozen=True)
class Luspo(Gspo):
    """LUSPO: GSPO whose sequences weigh by their length: the mean over sequences of length x min(s A, clip(s) A).

    Every token has GSPO's f, and the tokens of a sequence are added up ("sequence-sum") instead of averaged, which
    removes GSPO's preference for short rewarded and long punished completions.
    Source: arXiv 2602.05261, section 5.1, bands 2e-3 below and 2.5e-3 above; TRL, loss_type luspo. Departs: none.
    """

    rule = ClipRule.constant(lower=2e-3, upper=2.5e-3)
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence-sum",)
