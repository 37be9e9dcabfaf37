"""Clip rules: the band of probability ratios r = pi/pi_old in which a token keeps its gradient.

Clip rules never see the loss. A rule takes the old probability q = pi_old of the sampled token and the sign of its
advantage, and returns two ratios. Schedules that move a rule over training, such as ID, are strategies: see
`entrostat.control.strategies`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.registry import Registry


class ClipBand(ABC):
    """A band of ratios around 1. A new rule is a small class with `bounds`; one that clips unlike PPO adds `limits`.

    anchored: whether the band is around the policy that sampled, so that pi_old must be that policy.
    """

    anchored: ClassVar[bool] = False

    @property
    def per_token(self) -> bool:
        """Whether the band depends on the token's old probability; if not, it can bound a sequence's ratio."""
        return True

    @abstractmethod
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        """The band (low, high), each of the shape of `old_logp` = ln q in nats; 0 <= low <= 1 <= high."""

    def limits(self, old_logp: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest ratio that keep their gradient; by default those of PPO's pessimistic minimum.

        min(r A, clip(r, low, high) A) cuts one side for each sign: above `high` where A > 0, below `low` where A < 0.
        Source: arXiv 1707.06347, section 3.
        """
        low, high = self.bounds(old_logp)
        return torch.where(advantages < 0, low, 0.0), torch.where(advantages > 0, high, math.inf)


class ChangedBand(ClipBand):
    """Another band, changed: what a subclass does not override is that of `band`."""

    band: ClipBand

    @property
    @override
    def anchored(self) -> bool:  # type: ignore[override]
        """Whether `band` is around the policy that sampled."""
        return self.band.anchored

    @property
    @override
    def per_token(self) -> bool:
        return self.band.per_token

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        return self.band.bounds(old_logp)


clip_rule: Registry[ClipBand] = Registry("clip rule", ClipBand, "entrostat.objective")


@dataclass(frozen=True, slots=True)
class LinearThreshold:
    """A clip threshold that is linear in the current probability p of the sampled token: eps(p) = slope p + intercept.

    Source: arXiv 2602.09782. Raises ValueError when a coefficient is not finite.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        for name, value in (("slope", self.slope), ("intercept", self.intercept)):
            if not math.isfinite(value):
                raise ValueError(f"LinearThreshold.{name} is {value}; give a finite number")

    @classmethod
    def constant(cls, epsilon: float) -> LinearThreshold:
        """The same threshold at every probability: eps(p) = epsilon."""
        return cls(slope=0.0, intercept=epsilon)

    def at(self, probability: float) -> float:
        """eps at one probability."""
        return self.slope * probability + self.intercept

    def mix(self, other: LinearThreshold, weight: float) -> LinearThreshold:
        """weight * self + (1 - weight) * other, again linear in p. Raises ValueError for a weight outside [0, 1]."""
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is {weight}; a mixture needs a weight in [0, 1]")
        rest = 1 - weight
        return LinearThreshold(
            weight * self.slope + rest * other.slope, weight * self.intercept + rest * other.intercept
        )


PPO_THRESHOLD = LinearThreshold.constant(0.2)


@clip_rule("linear")
@dataclass(frozen=True)
class ClipRule(ClipBand):
    """The band 1 - lower(p) <= r <= 1 + upper(p) with thresholds linear in the current probability p = r q.

    Solved for r, it depends on the old probability q alone, so the band is detached by construction:
        r <= 1 + a p + b  <=>  r <= (1 + b) / (1 - a q)        upper: slope a, intercept b
        r >= 1 - a p - b  <=>  r >= (1 - b) / (1 + a q)        lower; a bound below 0 (b > 1) becomes 0: no clip
    least, most: limits of both thresholds at every p (most None: no limit), so that the bounds stay between 1 - most
    and 1 - least, and between 1 + least and 1 + most. The defaults are the constant .2 of PPO and GRPO.
    Source: arXiv 2602.09782; the lower form and that of the limits are derived here. Raises ValueError when a
    denominator is not positive, a threshold is negative at some q in [0, 1], or not 0 <= least <= most.
    """

    upper: LinearThreshold = PPO_THRESHOLD
    lower: LinearThreshold = PPO_THRESHOLD
    least: float = 0.0
    most: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self._most:
            raise ValueError(f"ClipRule: least is {self.least} and most {self.most}; give 0 <= least <= most")
        for name, threshold, slope in (
            ("upper", self.upper, self.upper.slope),
            ("lower", self.lower, -self.lower.slope),
        ):
            for q in (0.0, 1.0):
                if threshold.at(q) < 0:
                    raise ValueError(
                        f"ClipRule.{name}: {threshold} is {threshold.at(q):.4g} at q = {q:g}, which inverts the band; "
                        "keep slope * q + intercept >= 0 for every q in [0, 1]"
                    )
            if slope >= 1:
                raise ValueError(
                    f"ClipRule.{name}: {threshold} makes the denominator of its ratio bound zero "
                    f"at q = {1 / slope:.4g}; keep the slope {'below 1' if name == 'upper' else 'above -1'}"
                )

    @property
    def per_token(self) -> bool:
        """Whether a threshold has a slope."""
        return bool(self.upper.slope or self.lower.slope) and self.least < self._most

    @property
    def _most(self) -> float:
        return math.inf if self.most is None else self.most

    @classmethod
    def constant(cls, lower: float = 0.2, upper: float = 0.2) -> ClipRule:
        """The band 1 - lower <= r <= 1 + upper at every probability; clip-higher is constant(upper=0.28)."""
        return cls(upper=LinearThreshold.constant(upper), lower=LinearThreshold.constant(lower))

    def mix(self, other: ClipRule, weight: float) -> ClipRule:
        """weight * self + (1 - weight) * other in both thresholds, within the limits of self; valid if both are."""
        mixed = (self.upper.mix(other.upper, weight), self.lower.mix(other.lower, weight))
        return ClipRule(*mixed, self.least, self.most)

    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        """(low, high) in closed form; see the class."""
        q = old_logp.exp()
        low = (1 - self.lower.intercept) / (1 + self.lower.slope * q)
        high = (1 + self.upper.intercept) / (1 - self.upper.slope * q)
        low, high = low.clamp(1 - self._most, 1 - self.least), high.clamp(1 + self.least, 1 + self._most)
        return low.clamp_min(0), high
