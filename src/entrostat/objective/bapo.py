"""BAPO: a clip band that widens until rewarded tokens make up their share of the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor
from typing_extensions import override

from entrostat.objective.bands import DualClip
from entrostat.objective.clipping import ClipBand, ClipRule
from entrostat.objective.surrogates import Clip, Objective, Surrogate, Tokens, objective

Form = Literal["paper", "code"]


@objective("bapo")
@dataclass(frozen=True)
class Bapo(Objective):
    """BAPO: `Clip` in a constant band that widens until rewarded tokens make up `share` of the sum of r abs(A).

    From [low, high] the lower bound rises by `step` up to `low_max` (which removes punished tokens), then the upper
    one up to `high_max` (which returns rewarded tokens), until
        rewarded / (rewarded + punished) >= share
        form "paper":  sums of r abs(A) over the tokens that keep their gradient: r <= high (A > 0), r >= low (A < 0)
        form "code":   sums of min(r, high) A (A > 0) and max(r, low) abs(A) (A < 0) over all tokens, and a dual clip of
                       `cap` in the loss
    The sums are over the tokens given; `settled` takes them over a whole batch. The caller's rule is not used.
    Source: arXiv 2510.18927, algorithm 1; WooooDyy/BAPO, recipe/bapo/policy_loss.py, whose step of .05 is ours for both
    forms. Departs: the code's configuration stops at .8 and 2, its README and the paper at .9 and 3, our defaults;
    pos/neg >= t in the code is share t / (1 + t) here.
    Raises ValueError for another form, bounds out of order, and a cap of 1 or less.
    """

    banded = False

    low: float = 0.6
    low_max: float = 0.9
    high: float = 1.2
    high_max: float = 3.0
    share: float = 0.5
    step: float = 0.05
    form: Form = "paper"
    cap: float = 3.0

    def __post_init__(self) -> None:
        ordered = 0 <= self.low <= self.low_max <= 1 <= self.high <= self.high_max
        if not (ordered and 0 < self.share < 1 and self.step > 0):
            raise ValueError(f"Bapo: {self}; it needs 0 <= low <= low_max <= 1 <= high <= high_max, share in (0, 1)")
        if self.form not in get_args(Form):
            raise ValueError(f"Bapo.form is {self.form!r}; give 'paper' or 'code'")
        if not self.cap > 1:
            raise ValueError(f"Bapo.cap is {self.cap}; give a ratio above 1; the published value is 3")

    @override
    def settled(self, tokens: Tokens) -> tuple[Objective, ClipBand]:
        return Clip(), self.band(tokens)

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        return Clip()(replace(tokens, rule=self.band(tokens)))

    def band(self, tokens: Tokens) -> ClipBand:
        """The rule for these tokens."""
        low, high = self._bounds(tokens)
        rule = ClipRule.constant(lower=1 - low, upper=high - 1)
        return DualClip(rule, self.cap) if self.form == "code" else rule

    def _bounds(self, tokens: Tokens) -> tuple[float, float]:
        candidates = [(low, self.high) for low in self._climb(self.low, self.low_max)]
        candidates += [(self.low_max, high) for high in self._climb(self.high, self.high_max)]
        for low, high in candidates:
            rewarded, punished = self._sums(tokens, low, high)
            if rewarded >= self.share * (rewarded + punished):
                return low, high
        return self.low_max, self.high_max

    def _sums(self, tokens: Tokens, low: float, high: float) -> tuple[Tensor, Tensor]:
        up = tokens.mask & (tokens.advantages > 0)
        down = tokens.mask & (tokens.advantages < 0)
        if self.form == "code":
            saturated = tokens.ratio.clamp_max(high).where(up, tokens.ratio.clamp_min(low))
            pull = saturated * tokens.advantages
        else:
            up, down = up & (tokens.ratio <= high), down & (tokens.ratio >= low)
            pull = tokens.ratio * tokens.advantages
        return pull[up].sum(), -pull[down].sum()

    def _climb(self, start: float, stop: float) -> list[float]:
        count = math.ceil((stop - start) / self.step - 1e-9)
        return [start + i * self.step for i in range(count)] + [stop]
