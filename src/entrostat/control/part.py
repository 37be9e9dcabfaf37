"""The parts of an entropy controller: what each receives after a step, and what it provides.

A part implements what it decides, `clip`, `weights`, `unclipped` or `bonus`, and inherits the rest, which has no
effect. Only `observe` changes its state, once per step; the others can be called any number of times. A new part is one
class:

    @weighting("punished-half")
    @dataclass
    class PunishedHalf(Part):
        share: float = 0.5

        def weights(self, batch: TokenBatch) -> Tensor:
            return torch.where(batch.advantages < 0, self.share, 1.0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from torch import Tensor

from entrostat.control.curves import Curve
from entrostat.objective import ClipBand
from entrostat.registry import Registry
from entrostat.tokens import TokenStats

State = dict[str, Any]
Phase = Literal["increase", "decrease", "hold"]


class Resumable:
    """An object with a JSON-able state; one without state inherits these two methods."""

    def state_dict(self) -> State:
        """The state, as JSON-able data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError if the state belongs to another class."""
        if state:
            raise ValueError(
                f"{type(self).__name__} has no state, but the checkpoint has {sorted(state)}; "
                "resume with the recipe of the run"
            )


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one optimizer step, over all its micro-batches and ranks.

    step: optimizer steps done, including this one. progress: completed share of the run, in [0, 1]. entropy: mean H in
    nats, smoothed by the controller's `ema`. The others are None if the trainer does not measure them: kl_old,
    kl_reference and kl_sampler in nats per token, pass_rate the share of the completions with a reward above 0.
    """

    step: int
    progress: float
    entropy: float
    kl_old: float | None = None
    kl_reference: float | None = None
    kl_sampler: float | None = None
    pass_rate: float | None = None


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of a batch, all of one shape (...), detached.

    mask: the tokens that count; statistics of the batch are over them. rule: the band in force. token_weights: the
    weight that the aggregation gives each token in the loss, relative to token-mean, where it is 1. sampler_logp: ln mu
    of the policy that sampled, None where the trainer does not have it. sequences: the number of each token's sequence,
    for packed tokens (N,). old_entropy: H of pi_old at the token's position, nats, and rewards: the completion's reward
    before it became an advantage, -1/+1 where it is 0/1; both None where the trainer does not give them.
    """

    stats: TokenStats
    advantages: Tensor
    mask: Tensor
    old_logp: Tensor
    rule: ClipBand
    token_weights: Tensor
    sampler_logp: Tensor | None = None
    sequences: Tensor | None = None
    old_entropy: Tensor | None = None
    rewards: Tensor | None = None

    @cached_property
    def ratio(self) -> Tensor:
        """pi/pi_old; 1 outside the mask."""
        return (self.stats.logp - self.old_logp).where(self.mask, 0).exp()

    @property
    def clipped_low(self) -> Tensor:
        """Whether the lower side of the band removes the token's gradient."""
        return (self.ratio < self._limits[0]) & self.mask

    @property
    def clipped_high(self) -> Tensor:
        """Whether the upper side of the band removes the token's gradient."""
        return (self.ratio > self._limits[1]) & self.mask

    @cached_property
    def _limits(self) -> tuple[Tensor, Tensor]:
        return self.rule.limits(self.old_logp, self.advantages)


class Part(Resumable):
    """One part of a controller; see the module.

    needs_entropy: whether `observe` reads the entropy. needs_old_entropy: whether `weights` reads that of pi_old.
    on_policy: whether it is defined for one optimizer step per rollout batch only.
    """

    needs_entropy: ClassVar[bool] = False
    needs_old_entropy: ClassVar[bool] = False
    on_policy: ClassVar[bool] = False
    progress: float = 0.0
    """Completed share of the run; the controller keeps it up to date."""
    _curve: Curve | None = None
    """The entropy over the run, in nats, that the part steers to."""

    def observe(self, step: Measured) -> None:
        """Record an optimizer step; called once per step, in order."""

    def clip(self) -> ClipBand | None:
        """The band of the next step; only the part that owns the band returns one."""
        return None

    def advantages(self, batch: TokenBatch) -> Tensor | None:  # noqa: ARG002
        """Advantages (...) in place of the batch's, before any weights, for parts that read `rewards`; None: keep."""
        return None

    def weights(self, batch: TokenBatch) -> Tensor | None:  # noqa: ARG002
        """Factors >= 0 for the tokens' advantages (...), detached; None means all ones.

        A part that compares tokens depends on how a batch is split; pass the whole batch where that matters.
        """
        return None

    def unclipped(self, batch: TokenBatch) -> Tensor | None:  # noqa: ARG002
        """Coefficients c (...) of a term -c pi/pi_old per token beside the objective, which no band clips; None: none.

        The term is aggregated like the objective's loss. Only the embedded and tabular engines have it.
        """
        return None

    def bonus(self) -> float:
        """The coefficient of the mean entropy in the next step's loss, >= 0."""
        return 0.0

    @property
    def aim(self) -> float | None:
        """The entropy in nats that the part steers to now; None if it steers to none."""
        return None if self._curve is None else self._curve.at(self.progress)

    @property
    def push(self) -> float | None:
        """The action in force, 1 to raise and -1 to lower the entropy; None for a part that has no such number."""
        return None

    @property
    def phase(self) -> Phase:
        """What the band in force is meant to do to the entropy, for reports."""
        return "hold"

    def bands(self) -> Sequence[ClipBand]:
        """The bands between which `clip` moves; the objective must be able to use all of them."""
        band = self.clip()
        return () if band is None else (band,)

    @property
    def owns_band(self) -> bool:
        """Whether the part sets the clip band."""
        return type(self).clip is not Part.clip

    @property
    def weighs(self) -> bool:
        """Whether the part weights tokens, which needs their statistics."""
        return type(self).weights is not Part.weights

    @property
    def adds(self) -> bool:
        """Whether the part adds a term of its own to the loss."""
        return type(self).unclipped is not Part.unclipped

    @property
    def pays(self) -> bool:
        """Whether the part may give an entropy bonus, which needs the gradient of the entropy."""
        return type(self).bonus is not Part.bonus


strategy: Registry[Part] = Registry("strategy", Part, "entrostat.control")
weighting: Registry[Part] = Registry("reweighting", Part, "entrostat.control")
bonus: Registry[Part] = Registry("bonus", Part, "entrostat.control")
