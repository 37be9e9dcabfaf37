"""CE-GPPO: a bounded gradient outside the band."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from entrostat.objective.surrogates import Clip, Objective, Surrogate, Tokens, beyond, objective


@objective("ce-gppo")
@dataclass(frozen=True)
class CeGppo(Objective):
    """CE-GPPO: outside the band a bounded gradient instead of none.

    A < 0, r < low: f = punished low r / sg[r];  A > 0, r > high: f = rewarded high r / sg[r];  r inside as in `Clip`.
    Where a rule clips another side too, such as a dual clip's A < 0, r > cap, the gradient is 0, as in `Clip`.
    Source: arXiv 2509.20712; punished .75 at 7B (.5 elsewhere), rewarded 1; Kwai-Klear/CE-GPPO,
    verl/trainer/ppo/core_algos.py, compute_gppo_loss_general_beta. Departs: the authors always have a dual clip, of 3
    by default; here it is `control.dual_clip`. Raises ValueError for a negative factor.
    """

    punished: float = 0.75
    rewarded: float = 1.0

    def __post_init__(self) -> None:
        if not (self.punished >= 0 and self.rewarded >= 0):
            raise ValueError(f"CeGppo: {self}; both factors must be at least 0")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        below, above = beyond(tokens, inside)
        value = inside.value.where(~below, self.punished * inside.value)
        value = value.where(~above, self.rewarded * inside.value)
        return Surrogate(value, value.where(below | above, inside.slope), inside.clipped_low, inside.clipped_high)
