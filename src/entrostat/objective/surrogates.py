"""Objectives over tokens: what a token's ratio adds to the loss, and with which gradient.

Every objective here is -A f with f a function of r = pi/pi_old, defined by two numbers per token: the value f and its
slope df/d ln pi. An objective is a small class that maps detached tensors to a `Surrogate`; only `policy_loss` handles
gradients. Its `rule` is the published band, used when the caller gives none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from entrostat._renamed import moved_names
from entrostat.objective.clipping import ClipBand, ClipRule
from entrostat.registry import Registry

Aggregation = Literal["token-mean", "sequence-mean", "sequence-sum", "constant"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The input of an objective, detached: ratio = pi/pi_old, its logarithm, ln pi, ln pi_old, A, the rule.

    drift: see `policy_loss`; None where the caller does not know it.
    """

    logp: Tensor
    old_logp: Tensor
    log_ratio: Tensor
    ratio: Tensor
    advantages: Tensor
    mask: Tensor
    rule: ClipBand
    sequences: Tensor | None
    drift: Tensor | None = None


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
    one number (see `aggregate`). anchored: whether its trust region is around the policy that sampled, so that
    pi_old must be that policy.
    """

    rule: ClassVar[ClipBand] = ClipRule()
    banded: ClassVar[bool] = True
    aggregations: ClassVar[tuple[Aggregation, ...]] = get_args(Aggregation)
    anchored: ClassVar[bool] = False

    @property
    def needs_drift(self) -> bool:
        """Whether it reads `Tokens.drift`, which no trainer measures; `policy_loss` takes it."""
        return False

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
        return unclipped(tokens, tokens.ratio, tokens.ratio)


def unclipped(tokens: Tokens, value: Tensor, slope: Tensor) -> Surrogate:
    """A surrogate without a band."""
    never = torch.zeros_like(tokens.mask)
    return Surrogate(value, slope, never, never)


def beyond(tokens: Tokens, clipped: Surrogate) -> tuple[Tensor, Tensor]:
    """Where PPO's minimum clips: (below for A < 0, above for A > 0); without other sides that a rule may clip."""
    return clipped.clipped_low & (tokens.advantages < 0), clipped.clipped_high & (tokens.advantages > 0)


def named(name: str) -> Objective:
    """The objective of this recipe name, with its published settings. Raises ValueError if there is none."""
    known = name if ":" in name else name.replace("_", "-")
    return objective.made(name, objective.find(known)())


__getattr__ = moved_names(
    __name__,
    {
        "Bapo": "entrostat.objective.bapo",
        "CeGppo": "entrostat.objective.ce_gppo",
        "Cispo": "entrostat.objective.cispo",
        "Gmpo": "entrostat.objective.gmpo",
        "Gspo": "entrostat.objective.gspo",
        "Nsr": "entrostat.objective.nsr",
        "Sapo": "entrostat.objective.sapo",
    },
)
