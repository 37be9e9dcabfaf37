"""EntroPIC: proportional-integral control of the entropy, as released, and its balance as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve, target_curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("entropic")
@dataclass
class EntroPic(Part):
    """EntroPIC: a term -alpha r abs(A) beside the clipped loss, its mean over the likely tokens, p_a > likely.

    alpha = clip(kp e + ki sum e, -bound, bound) with e = H - target, H the entropy of the batch before its step, in
    nats, and the sum over the earlier steps. Below the target rewarded tokens that are likely anyway count less, and
    punished ones more; no band clips the term. It acts with one optimizer step per batch too. Its mean weighs tokens as
    the aggregation does. target: nats, or a curve over the run.
    Source: arXiv 2511.15248; yk7333/EntroPIC, core_algos.py, compute_policy_loss_entropic, and dp_actor.py: kp 1,
    ki .01, likely .95, bound 1, target .1, and verl's dual clip of 3 (`control.dual_clip`). Departs: H and the mean are
    those of the batch, where the authors have those of a micro-batch; under sequence-mean theirs leaves out sequences
    without likely tokens.
    Raises ValueError for a target <= 0, gains < 0, likely outside [0, 1), bound outside (0, 1].
    """

    needs_entropy = True

    target: float | Curve
    kp: float = 1.0
    ki: float = 0.01
    likely: float = 0.95
    bound: float = 1.0
    _sum: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._curve: Curve = target_curve(self.target, "EntroPic.target")
        if not (self.kp >= 0 and self.ki >= 0 and 0 <= self.likely < 1 and 0 < self.bound <= 1):
            raise ValueError(
                f"EntroPic: {self}; gains must be at least 0, likely at least 0 and below 1, bound in (0, 1]"
            )

    @override
    def observe(self, step: Measured) -> None:
        self._sum += step.entropy - self._curve.at(step.progress)

    def alpha(self, entropy: float) -> float:
        """The coefficient of the term for a batch of this mean entropy, in nats."""
        wanted = self.kp * (entropy - self._curve.at(self.progress)) + self.ki * self._sum
        return min(max(wanted, -self.bound), self.bound)

    @override
    @torch.no_grad()
    def unclipped(self, batch: TokenBatch) -> Tensor:
        stats, mask = batch.stats, batch.mask
        alpha = self.alpha(float(stats.entropy[mask].mean()))
        chosen = (stats.logp > torch.tensor(self.likely).log()) & mask
        counted = batch.token_weights.where(mask, 0)
        share = counted[chosen].sum() / counted.sum()
        return alpha * batch.advantages.abs().where(chosen, 0) / share.clamp_min(torch.finfo(share.dtype).tiny)

    @override
    def state_dict(self) -> State:
        return {"sum": self._sum}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sum = state["sum"]


@weighting("entropic-weights")
@dataclass
class EntropicWeights(Part):
    """EntroPIC's balance of rewarded and punished tokens as weights of all tokens, which every host can carry.

    e = target - H,  a = clip(kp e + ki sum e),  weights 1 - a where A > 0 and 1 + a where A < 0: below the target
    it learns more from failures. target: nats, or a curve over the run. Source: arXiv 2511.15248. Departs: on all
    tokens, not on the likely ones, and inside the clip; H is that of the last step; the sum of e, which has this step,
    stops growing at the clip to [-bound, bound]. `entropic` is the method as released.
    Raises ValueError for a target <= 0, gains < 0, bound outside (0, 1].
    """

    needs_entropy = True

    target: float | Curve
    kp: float = 1.0
    ki: float = 0.01
    bound: float = 0.9
    _balance: float = field(default=0.0, init=False, repr=False)
    _sum: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._curve: Curve = target_curve(self.target, "EntropicWeights.target")
        if not (self.kp >= 0 and self.ki >= 0 and 0 < self.bound <= 1):
            raise ValueError(f"EntropicWeights: {self}; gains must be at least 0, bound in (0, 1]")

    @override
    def observe(self, step: Measured) -> None:
        error = self._curve.at(step.progress) - step.entropy
        wanted = self.kp * error + self.ki * (self._sum + error)
        self._balance = min(max(wanted, -self.bound), self.bound)
        if wanted == self._balance or wanted * error < 0:
            self._sum += error

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        return (1 - self._balance * advantages.sign()).expand_as(stats.logp)

    @override
    def state_dict(self) -> State:
        return {"balance": self._balance, "sum": self._sum}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._balance, self._sum = state["balance"], state["sum"]
