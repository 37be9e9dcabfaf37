"""Holding the entropy on a curve by feedback, with two hands: clip thresholds or polarity weights.

Both are ours and published nowhere else; the law is that of `CurveFollower`.
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
from entrostat.control.reweighting import Reweighting, by_polarity
from entrostat.control.state import State
from entrostat.control.strategies import STANDARD, Phase, Strategy, progress
from entrostat.entropy import polarity
from entrostat.objective import ClipRule, LinearThreshold
from entrostat.tokens import TokenStats

RAISING = ClipRule(upper=LinearThreshold(slope=-0.1, intercept=0.1), lower=LinearThreshold(slope=0.3, intercept=0.01))
LOWERING = ClipRule(upper=LinearThreshold(slope=0.5, intercept=0.0), lower=LinearThreshold.constant(0.5))


@dataclass
class TargetEntropy(Strategy):
    """Moves both thresholds to steer the entropy towards `curve`; memory and reach are the follower's.

    The follower's action u sets the rule by mixing: 1 is `raising`, 0 `neutral`, -1 `lowering`. By the regions E1-E4,
    raising stops the reward of likely tokens (E1: upper .1 - .1 p, nothing at p = 1) and the punishment of rare ones
    (E4: lower .01 + .3 p) as soon as their ratios move; lowering lets both go on (upper .5 p, lower .5) and stops the
    reward of rare ones (E2). It cannot do more than clipping can: the first optimizer step on a batch is
    never clipped. Take more passes, or act by weights (`TargetWeights`). Ours, n = 5: nearer to a constant than GRPO,
    not certainly nearer to a falling line, no nearer to a rise and fall (studies/entropy-strategies).
    Raises ValueError for memory or reach below 1 and for an entropy that is not finite.
    """

    curve: Curve
    raising: ClipRule = RAISING
    neutral: ClipRule = STANDARD
    lowering: ClipRule = LOWERING
    memory: float = 30.0
    reach: int = 5
    _follower: CurveFollower = field(init=False, repr=False)
    _step: int = field(default=-1, init=False, repr=False)

    def __post_init__(self) -> None:
        self._follower = CurveFollower(self.curve, self.memory, self.reach)

    @override
    def rule(self, step: int, total_steps: int, entropy: float | None = None) -> ClipRule:
        done = progress(step, total_steps)
        if entropy is not None and step > self._step:
            self._follower.hear(entropy, done)
            self._step = step
        action = self._follower.action
        return (self.raising if action > 0 else self.lowering).mix(self.neutral, abs(action))

    @override
    def bands(self) -> Sequence[ClipRule]:
        return self.raising, self.neutral, self.lowering

    @override
    def phase(self, step: int, total_steps: int) -> Phase:
        """The side to which the last action pushes, "hold" below a twentieth of its range."""
        action = self._follower.action
        if abs(action) < 0.05:
            return "hold"
        return "increase" if action > 0 else "decrease"

    @override
    def state_dict(self) -> State:
        return {"step": self._step, "follower": self._follower.state_dict()}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"]
        self._follower.load_state_dict(state["follower"])


@dataclass
class TargetWeights(Reweighting):
    """Weighs tokens by their polarity to steer the entropy towards `curve`; memory and reach are the follower's.

    Weights 1 + strength u on expanding tokens (P > 0) and 1 - strength u on contracting ones (P < 0), u the action.
    Raises ValueError for a strength outside [0, 1), memory or reach below 1, and an entropy that is not finite.
    """

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
    def observe(self, entropy: float, progress: float) -> None:
        self._follower.hear(entropy, progress)

    @override
    @torch.no_grad()
    def weights(self, stats: TokenStats, advantages: Tensor, mask: Tensor) -> Tensor:
        push = self.strength * self._follower.action
        return by_polarity(polarity(stats, advantages), 1 + push, 1 - push)

    @override
    def state_dict(self) -> State:
        return self._follower.state_dict()

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._follower.load_state_dict(state)
