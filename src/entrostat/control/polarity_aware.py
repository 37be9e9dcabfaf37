"""Polarity-aware reweighting: the entropy decides whether expanding or contracting tokens weigh more.

The method is Polarity-Aware Policy Optimization (arXiv 2605.11775). We found no published formula, coefficients or clip
values; this is our reconstruction from its description: both branches stay, and the course of the smoothed entropy
decides which of them weighs more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting
from entrostat.control.reweighting import by_polarity
from entrostat.entropy import polarity, sensitivity


@weighting("polarity-aware")
@dataclass
class PolarityAware(Part):
    """Weights 1 + strength u on expanding tokens (P = A T > 0) and 1 - strength u on contracting ones (P < 0).

    The phase u in [-1, 1] follows the smoothed entropy E_k of the steps (the controller's `ema`):
        level   u = clip((R - E_k) / (scale R)),  R the reference: a curve, or None for the first entropy
        slope   u = clip(-(E_k - E_{k-lag}) / (scale E_{k-lag})),  0 before there are `lag` steps
    graded: the strength of a token is `strength` times its rank by abs(T) among the given tokens, from 0 to 1, because
    the sign alone also moves tokens whose T is near 0. With strength < 1 no branch is dropped and no advantage changes
    its sign. rewarded_only: punished tokens (A < 0) keep the weight 1. Ours, pass@1 against GRPO, n = 5: without it,
    R the first entropy, -.245 [-.399, -.090]; with it, R falling, +.020 [-.008, .048] (studies/polarity-control).
    Raises ValueError for a strength outside [0, 1), a scale that is not positive and a lag below 1.
    """

    needs_entropy = True

    signal: Literal["level", "slope"] = "level"
    strength: float = 0.5
    scale: float = 0.2
    reference: Curve | None = None
    lag: int = 5
    graded: bool = False
    rewarded_only: bool = False
    _phase: float = field(default=0.0, init=False, repr=False)
    _past: list[float] = field(default_factory=list, init=False, repr=False)
    _first: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.signal not in ("level", "slope"):
            raise ValueError(f"PolarityAware.signal is {self.signal!r}; give 'level' or 'slope'")
        if not 0 <= self.strength < 1:
            raise ValueError(f"PolarityAware.strength is {self.strength}; give a number in [0, 1)")
        if not (self.scale > 0 and self.lag >= 1):
            raise ValueError(f"PolarityAware: scale {self.scale} must be positive and lag {self.lag} at least 1")

    @property
    @override
    def aim(self) -> float | None:
        if self.signal != "level" or self._first is None:
            return None
        return self._reference(self.progress, self._first)

    def _reference(self, progress: float, first: float) -> float:
        """The entropy in nats at which the level gives no push."""
        return first if self.reference is None else self.reference.at(progress, first)

    @property
    @override
    def push(self) -> float:
        """The phase u: 1 expands the most, -1 contracts the most."""
        return self._phase

    @override
    def observe(self, step: Measured) -> None:
        entropy = step.entropy
        self._first = entropy if self._first is None else self._first
        self._past = [*self._past, entropy][-(self.lag + 1) :]
        if self.signal == "level":
            reference = self._reference(step.progress, self._first)
        else:
            reference = self._past[0] if len(self._past) > self.lag else entropy
        relative = (reference - entropy) / (self.scale * reference) if reference > 0 else 0.0
        self._phase = min(max(relative, -1.0), 1.0)

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        push: float | Tensor = self.strength * self._phase
        if self.graded:
            push = push * _rank(sensitivity(stats).abs(), mask)
        weights = by_polarity(polarity(stats, advantages), 1 + push, 1 - push)
        return weights.where(advantages > 0, 1.0) if self.rewarded_only else weights

    @override
    def state_dict(self) -> State:
        return {"phase": self._phase, "past": list(self._past), "first": self._first}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._phase, self._past, self._first = state["phase"], list(state["past"]), state["first"]


def _rank(x: Tensor, mask: Tensor) -> Tensor:
    """The share of the other masked tokens that x exceeds: 0 for the least, 1 for the greatest; 0 outside the mask."""
    chosen = x[mask]
    ranks = chosen.argsort().argsort().to(x.dtype) / max(len(chosen) - 1, 1)
    return torch.zeros_like(x).masked_scatter(mask, ranks)
