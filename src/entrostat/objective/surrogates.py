"""Objectives over tokens: what a token's ratio adds to the loss, and with which gradient.

Every objective here is -A f with f a function of r = pi/pi_old, defined by two numbers per token: the value f and its
slope df/d ln pi. An objective is a small class that maps detached tensors to a `Surrogate`; only `policy_loss` handles
gradients. Its `rule` is the published band, used when the caller gives none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.objective.clipping import ClipBand, ClipRule
from entrostat.objective.sequences import sequence_mean
from entrostat.registry import Registry

Aggregation = Literal["token-mean", "sequence-mean", "constant"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The input of an objective, detached: ratio = pi/pi_old, its logarithm, ln pi, ln pi_old, A, the rule."""

    logp: Tensor
    old_logp: Tensor
    log_ratio: Tensor
    ratio: Tensor
    advantages: Tensor
    mask: Tensor
    rule: ClipBand
    sequences: Tensor | None


@dataclass(frozen=True, slots=True)
class Surrogate:
    """The output of an objective, (...): the value f, the slope df/d ln pi, and where each side of the band clips."""

    value: Tensor
    slope: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


class Objective(ABC):
    """One policy-gradient objective.

    rule: its published band. banded: whether it uses a band at all. aggregations: how its tokens may be reduced to
    one number (see `aggregate`).
    """

    rule: ClassVar[ClipBand] = ClipRule()
    banded: ClassVar[bool] = True
    aggregations: ClassVar[tuple[Aggregation, ...]] = get_args(Aggregation)

    def refuses(self, bands: Sequence[ClipBand]) -> str | None:  # noqa: ARG002
        """Why the objective cannot use the bands that a strategy sets; None if it can."""
        return None if self.banded else "uses no clip band"

    @property
    def compares(self) -> bool:
        """Whether a token's loss depends on the other tokens of the batch, so that `settled` is needed."""
        return type(self).settled is not Objective.settled

    def settled(self, tokens: Tokens) -> tuple[Objective, ClipBand]:
        """The objective and rule for each piece of a batch, fixed from all its tokens."""
        return self, tokens.rule

    @abstractmethod
    def __call__(self, tokens: Tokens) -> Surrogate:
        """The value and slope of every token."""


objective: Registry[Objective] = Registry("objective", Objective, "entrostat.objective")


@objective("clip")
@dataclass(frozen=True)
class Clip(Objective):
    """PPO's pessimistic clip: f = min(r A, clip(r, low, high) A) / A, with gradient 0 outside the rule's limits.

    Source: arXiv 1707.06347, section 3; the band is the rule's.
    """

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        low, high = tokens.rule.limits(tokens.old_logp, tokens.advantages)
        below, above = tokens.ratio < low, tokens.ratio > high
        slope = tokens.ratio.masked_fill(below | above, 0)
        return Surrogate(tokens.ratio.clamp(low, high), slope, below, above)


@objective("bapo")
@dataclass(frozen=True)
class Bapo(Objective):
    """BAPO: `Clip` in a constant band that widens until rewarded tokens make up `share` of the remaining gradient.

    From [low, high] the lower bound rises by `step` up to `low_max` (which removes punished tokens), then the upper
    one up to `high_max` (which returns rewarded tokens), until
        sum of r A over A > 0, r <= high  /  sum of r abs(A) over all tokens that keep their gradient  >=  share
    The sums are over the tokens given; `settled` takes them over a whole batch. The caller's rule is not used.
    Source: arXiv 2510.18927; the step is our choice. Raises ValueError for bounds out of order.
    """

    banded = False

    low: float = 0.6
    low_max: float = 0.9
    high: float = 1.2
    high_max: float = 3.0
    share: float = 0.5
    step: float = 0.02

    def __post_init__(self) -> None:
        ordered = 0 <= self.low <= self.low_max <= 1 <= self.high <= self.high_max
        if not (ordered and 0 < self.share < 1 and self.step > 0):
            raise ValueError(f"Bapo: {self}; it needs 0 <= low <= low_max <= 1 <= high <= high_max, share in (0, 1)")

    @override
    def settled(self, tokens: Tokens) -> tuple[Objective, ClipBand]:
        return Clip(), self.band(tokens)

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        return Clip()(replace(tokens, rule=self.band(tokens)))

    def band(self, tokens: Tokens) -> ClipRule:
        """The rule for these tokens."""
        pull = tokens.ratio * tokens.advantages
        candidates = [(low, self.high) for low in self._climb(self.low, self.low_max)]
        candidates += [(self.low_max, high) for high in self._climb(self.high, self.high_max)]
        for low, high in candidates:
            rewarded = pull[(tokens.advantages > 0) & (tokens.ratio <= high) & tokens.mask].sum()
            punished = -pull[(tokens.advantages < 0) & (tokens.ratio >= low) & tokens.mask].sum()
            if rewarded >= self.share * (rewarded + punished):
                break
        return ClipRule.constant(lower=1 - low, upper=high - 1)

    def _climb(self, start: float, stop: float) -> list[float]:
        count = math.ceil((stop - start) / self.step - 1e-9)
        return [start + i * self.step for i in range(count)] + [stop]


@objective("clip-undetached")
@dataclass(frozen=True)
class ClipUndetached(Objective):
    """The clip whose thresholds eps(p) have a gradient.

    f = 1 + upper(p) above the band (A > 0), 1 - lower(p) below it (A < 0), r inside as in `Clip`. Outside, the slope is
    upper.slope p or -lower.slope p instead of 0: with the published negative slopes, a weak pull back into the band
    from above, and below it a weak push further down.
    Source: arXiv 2602.09782, which allows this reading and that of `Clip`. Raises ValueError for a rule that is not a
    `ClipRule`.
    """

    @override
    def refuses(self, bands: Sequence[ClipBand]) -> str | None:
        rules = [band for band in bands if isinstance(band, ClipRule)]
        if len(rules) < len(bands):
            return "needs thresholds that are linear in p"
        if not any(rule.per_token for rule in rules):
            return "is `clip` where the thresholds have no slope"
        return None

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        rule = tokens.rule
        if not isinstance(rule, ClipRule):
            raise ValueError(
                f"objective 'clip_undetached' needs a ClipRule, whose thresholds depend on pi; the rule is a "
                f"{type(rule).__name__}; give a ClipRule or use objective 'clip'"
            )
        inside = Clip()(tokens)
        p = tokens.logp.exp()
        above = 1 + rule.upper.slope * p + rule.upper.intercept
        below = 1 - rule.lower.slope * p - rule.lower.intercept
        value = inside.value.where(~inside.clipped_high, above).where(~inside.clipped_low, below)
        slope = inside.slope.where(~inside.clipped_high, rule.upper.slope * p)
        slope = slope.where(~inside.clipped_low, -rule.lower.slope * p)
        return Surrogate(value, slope, inside.clipped_low, inside.clipped_high)


@objective("reinforce")
@dataclass(frozen=True)
class Reinforce(Objective):
    """The plain importance-weighted policy gradient, never clipped: f = r, so at r = 1 the gradient is -A grad ln pi.

    With several epochs per batch it pushes punished tokens down without bound; the collapse testbed uses it.
    """

    banded = False

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        return _unclipped(tokens, tokens.ratio, tokens.ratio)


@objective("cispo")
@dataclass(frozen=True)
class Cispo(Objective):
    """CISPO: f = sg[clip(r, low, high)] ln pi. Every token keeps a gradient; the band caps its weight, for either sign.

    Source: arXiv 2506.13585, section 3.1: no lower bound in practice. The paper leaves the upper one open; r <= 5 is
    that of arXiv 2510.13786.
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


@objective("sapo")
@dataclass(frozen=True)
class Sapo(Objective):
    """SAPO, a soft gate instead of the clip: f = 4/tau sigmoid(tau (r - 1)), tau by the sign of A; no band.

    Aggregate by "sequence-mean". Source: arXiv 2511.20347. Raises ValueError for a tau that is not positive.
    """

    banded = False
    aggregations = ("sequence-mean",)

    tau_rewarded: float = 1.0
    tau_punished: float = 1.05

    def __post_init__(self) -> None:
        if not (self.tau_rewarded > 0 and self.tau_punished > 0):
            raise ValueError(f"Sapo: {self}; both temperatures must be positive")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        one = torch.ones_like(tokens.ratio)
        tau = torch.where(tokens.advantages > 0, self.tau_rewarded * one, self.tau_punished)
        gate = torch.sigmoid(tau * (tokens.ratio - 1))
        return _unclipped(tokens, 4 / tau * gate, 4 * gate * (1 - gate) * tokens.ratio)


@objective("ce-gppo")
@dataclass(frozen=True)
class CeGppo(Objective):
    """CE-GPPO: outside the band a bounded gradient instead of none.

    A < 0, r < low: f = punished low r / sg[r];  A > 0, r > high: f = rewarded high r / sg[r];  r inside as in `Clip`.
    Where a rule clips another side too, such as a dual clip's A < 0, r > cap, the gradient is 0, as in `Clip`.
    Source: arXiv 2509.20712; punished .75 at 7B (.5 elsewhere), rewarded 1. Raises ValueError for a negative factor.
    """

    punished: float = 0.75
    rewarded: float = 1.0

    def __post_init__(self) -> None:
        if not (self.punished >= 0 and self.rewarded >= 0):
            raise ValueError(f"CeGppo: {self}; both factors must be at least 0")

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        below, above = _beyond(tokens, inside)
        value = inside.value.where(~below, self.punished * inside.value)
        value = value.where(~above, self.rewarded * inside.value)
        return Surrogate(value, value.where(below | above, inside.slope), inside.clipped_low, inside.clipped_high)


@objective("nsr")
@dataclass(frozen=True)
class Nsr(Objective):
    """Near-boundary stochastic rescue: `Clip`, but a token outside the band by at most `width` in r keeps its
    unclipped f = r with the probability `keep`, drawn from torch's global generator.

    Outside is r < low for A < 0 and r > high for A > 0; tokens beyond another limit, such as a dual clip's cap, stay
    clipped. Source: arXiv 2605.22703 for the rule; width and keep are our choice, because we found no published values.
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
        below, above = _beyond(tokens, inside)
        second_side = (inside.clipped_low & ~below) | (inside.clipped_high & ~above)
        rescued = near & ~second_side & (torch.rand_like(tokens.ratio) < self.keep)
        value = tokens.ratio.where(rescued, inside.value)
        slope = tokens.ratio.where(rescued, inside.slope)
        return Surrogate(value, slope, inside.clipped_low & ~rescued, inside.clipped_high & ~rescued)


@objective("gspo")
@dataclass(frozen=True)
class Gspo(Objective):
    """GSPO: the clip on the ratio of the sequence, s = (pi(y)/pi_old(y))^(1/length): f = s pi / sg[pi] within the band.

    Aggregate by "sequence-mean" with one advantage per sequence: the gradient is that of min(s A, clip(s) A).
    Source: arXiv 2507.18071, section 4, bands 3e-4 below and 4e-4 above.
    """

    rule = ClipRule.constant(lower=3e-4, upper=4e-4)
    aggregations = ("sequence-mean",)

    @override
    def refuses(self, bands: Sequence[ClipBand]) -> str | None:
        return "clips a sequence's ratio, not a token's" if any(b.per_token for b in bands) else None

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        low, high = tokens.rule.limits(tokens.old_logp, tokens.advantages)
        ratio = sequence_mean(tokens.log_ratio, tokens.mask, tokens.sequences).exp()
        below, above = ratio < low, ratio > high
        return Surrogate(ratio.clamp(low, high), ratio.masked_fill(below | above, 0), below, above)


@objective("gmpo")
@dataclass(frozen=True)
class Gmpo(Objective):
    """GMPO: the geometric mean over the sequence of its clipped token ratios, g = exp(mean ln clip(r)).

    f = g, with no gradient through a clipped token. Aggregate by "sequence-mean" with one advantage per sequence.
    Source: arXiv 2507.20673, the wide band exp(-.4) to exp(.4).
    """

    rule = ClipRule.constant(lower=1 - math.exp(-0.4), upper=math.exp(0.4) - 1)
    aggregations = ("sequence-mean",)

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        inside = Clip()(tokens)
        mean = sequence_mean(inside.value.log(), tokens.mask, tokens.sequences).exp()
        live = ~(inside.clipped_low | inside.clipped_high)
        return Surrogate(mean, mean * live, inside.clipped_low, inside.clipped_high)


def _unclipped(tokens: Tokens, value: Tensor, slope: Tensor) -> Surrogate:
    never = torch.zeros_like(tokens.mask)
    return Surrogate(value, slope, never, never)


def _beyond(tokens: Tokens, clipped: Surrogate) -> tuple[Tensor, Tensor]:
    """Where PPO's minimum clips: (below for A < 0, above for A > 0); without other sides that a rule may clip."""
    return clipped.clipped_low & (tokens.advantages < 0), clipped.clipped_high & (tokens.advantages > 0)


def named(name: str) -> Objective:
    """The objective of this recipe name, with its published settings. Raises ValueError if there is none."""
    known = name if ":" in name else name.replace("_", "-")
    return objective.made(name, objective.find(known)())
