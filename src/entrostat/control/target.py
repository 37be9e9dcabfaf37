"""Feedback control of the entropy along a curve, by clip thresholds or by polarity weights.

Both methods are our own and unpublished; `CurveFollower` has the control law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.following import CurveFollower
from entrostat.control.part import Measured, Part, Phase, State, TokenBatch, strategy, weighting
from entrostat.control.reweighting import by_polarity
from entrostat.control.strategies import STANDARD, Strategy
from entrostat.entropy import polarity
from entrostat.objective import ClipRule, LinearThreshold

RAISING = ClipRule(upper=LinearThreshold(slope=-0.1, intercept=0.1), lower=LinearThreshold(slope=0.3, intercept=0.01))
LOWERING = ClipRule(upper=LinearThreshold(slope=0.5, intercept=0.0), lower=LinearThreshold.constant(0.5))


@strategy("target-entropy")
@dataclass
class TargetEntropy(Strategy):
    """Moves both thresholds to steer the entropy towards `curve`; memory and reach as in `CurveFollower`.

    The follower's action u mixes three rules: 1 is `raising`, 0 `neutral`, -1 `lowering`. In terms of the regions
    E1-E4, raising stops the reward of likely tokens (E1: upper .1 - .1 p, 0 at p = 1) and the punishment of rare ones
    (E4: lower .01 + .3 p) as soon as their ratios move; lowering continues both (upper .5 p, lower .5) and stops the
    reward of rare ones (E2). It is limited to what clipping can do: the first optimizer step on a batch is never
    clipped. Use more passes, or weights (`TargetWeights`). Ours, n = 5: closer to a constant than GRPO, not certainly
    closer to a falling line, no closer to a rise and fall (studies/entropy-strategies).
    Raises ValueError for memory or reach below 1 and for an entropy that is not finite.
    """

    needs_entropy = True

    curve: Curve
    raising: ClipRule = RAISING
    neutral: ClipRule = STANDARD
    lowering: ClipRule = LOWERING
    memory: float = 30.0
    reach: int = 5
    _follower: CurveFollower = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._follower = CurveFollower(self.curve, self.memory, self.reach)

    @override
    def observe(self, step: Measured) -> None:
        self._follower.observe(step.entropy, step.progress)

    @override
    def clip(self) -> ClipRule:
        action = self._follower.action
        return (self.raising if action > 0 else self.lowering).mix(self.neutral, abs(action))

    @override
    def bands(self) -> Sequence[ClipRule]:
        return self.raising, self.neutral, self.lowering

    @property
    @override
    def phase(self) -> Phase:
        """The direction of the last action; "hold" if it is below a twentieth of its range."""
        action = self._follower.action
        if abs(action) < 0.05:
            return "hold"
        return "increase" if action > 0 else "decrease"

    @override
    def state_dict(self) -> State:
        return {"follower": self._follower.state_dict()}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._follower.load_state_dict(state["follower"])


@weighting("target-weights")
@dataclass
class TargetWeights(Part):
    """Weights tokens by their polarity to steer the entropy towards `curve`; memory and reach as in `CurveFollower`.

    Weights: 1 + strength u on expanding tokens (P > 0), 1 - strength u on contracting ones (P < 0), u the action.
    Raises ValueError for a strength outside [0, 1), memory or reach below 1, and an entropy that is not finite.
    """

    needs_entropy = True

    curve: Curve
    strength: float = 0.5
    memory: float = 30.0
    reach: int = 5
    _follower: CurveFollower = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"TargetWeights.strength is {self.strength}; give a number in [0, 1)")
        self._follower = CurveFollower(self.curve, self.memory, self.reach)

    @override
    def observe(self, step: Measured) -> None:
        self._follower.observe(step.entropy, step.progress)

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        push = self.strength * self._follower.action
        return by_polarity(polarity(batch.stats, batch.advantages), 1 + push, 1 - push)

    @override
    def state_dict(self) -> State:
        return self._follower.state_dict()

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._follower.load_state_dict(state)
