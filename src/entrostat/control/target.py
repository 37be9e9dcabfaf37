"""Feedback control of the entropy along a curve, by weights of the tokens or by clip thresholds.

Both methods are our own and unpublished; `Thermostat` and `CurveFollower` have their control laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.following import CurveFollower
from entrostat.control.part import Measured, Part, Phase, State, TokenBatch, strategy, weighting
from entrostat.control.reweighting import by_polarity
from entrostat.control.strategies import STANDARD, Strategy
from entrostat.control.thermostat import Thermostat
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
    clipped. Weights do more (`TargetWeights`). Ours, n = 5: closer to a constant than GRPO, not certainly
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
        self._curve = self.curve
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
    def push(self) -> float:
        return self._follower.action

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
    """Weights tokens by their polarity P = A T to steer the entropy along `curve`; see `Thermostat` for the action u.

        v = strength u (A > 0),  v = punished strength u (A < 0);    weight 1 + v (P > 0),  1 - v (P < 0)
    punished: the share of the push on punished tokens, from 0 (rewarded tokens only) to 1 (both branches alike).
    by: "logp" is for trainers that hand over ln p alone: weight 1 - sign(A) v max(ln p, -1), after the weights of
    REPO-R (arXiv 2603.11682), limited so that they stay in [1 - strength, 1 + strength].
    reach, most_change: as in `Thermostat`. Raises ValueError for a strength outside [0, 1), a share outside [0, 1],
    another `by`, and what `Thermostat` refuses.
    """

    needs_entropy = True

    curve: Curve
    strength: float = 0.9
    punished: float = 1.0
    by: Literal["polarity", "logp"] = "polarity"
    reach: int = 5
    most_change: float = 0.25
    _thermostat: Thermostat = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"TargetWeights.strength is {self.strength}; give a number in [0, 1)")
        if not 0 <= self.punished <= 1:
            raise ValueError(f"TargetWeights.punished is {self.punished}; give a share in [0, 1]")
        if self.by not in ("polarity", "logp"):
            raise ValueError(f"TargetWeights.by is {self.by!r}; give 'polarity' or 'logp'")
        self._thermostat = Thermostat(self.curve, self.reach, self.most_change)

    @property
    @override
    def aim(self) -> float | None:
        return self._thermostat.aim

    @property
    @override
    def push(self) -> float:
        """The action u: 1 expands the most, -1 contracts the most."""
        return self._thermostat.action

    @override
    def observe(self, step: Measured) -> None:
        self._thermostat.observe(step.entropy, step.progress)

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        push = self.strength * self.push * torch.where(advantages < 0, self.punished, 1.0)
        if self.by == "logp":
            return 1 - push * advantages.sign() * stats.logp.clamp(-1, 0)
        return by_polarity(polarity(stats, advantages), 1 + push, 1 - push)

    @override
    def state_dict(self) -> State:
        return self._thermostat.state_dict()

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._thermostat.load_state_dict(state)
