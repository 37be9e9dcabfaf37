"""The parts of an entropy controller: what each is told of a step, and what it may be asked for.

A part implements what it decides, `clip`, `weights` or `bonus`, and inherits the rest, which does nothing. Only
`observe` changes it, once per step; asking it changes nothing, however often. A new part is one class in one file:

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

from entrostat.objective import ClipBand
from entrostat.registry import Registry
from entrostat.tokens import TokenStats

State = dict[str, Any]
Phase = Literal["increase", "decrease", "hold"]


class Resumable:
    """An object with a JSON-able state; one that remembers nothing keeps these two methods."""

    def state_dict(self) -> State:
        """What the object remembers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError when the state belongs to another class."""
        if state:
            raise ValueError(
                f"{type(self).__name__} keeps no state, the checkpoint has {sorted(state)}; "
                "resume with the recipe that the run began with"
            )


@dataclass(frozen=True, slots=True)
class Measured:
    """One optimizer step, as all its micro-batches and ranks measured it together.

    step: optimizer steps done, this one included. progress: share of the run that is done, in [0, 1]. entropy: mean H
    in nats, smoothed by the controller's `ema`. The others are None where the trainer does not measure them: kl_old,
    kl_reference and kl_sampler are nats per token, pass_rate a share of the completions.
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

    mask: the tokens that count; statistics of the batch are theirs. rule: the band in force. token_weights: the share
    that the aggregation gives each token in the loss, relative to token-mean, so ones there. sampler_logp: ln mu of the
    policy that sampled, where it is not the one of old_logp.
    """

    stats: TokenStats
    advantages: Tensor
    mask: Tensor
    old_logp: Tensor
    rule: ClipBand
    token_weights: Tensor
    sampler_logp: Tensor | None = None

    @cached_property
    def ratio(self) -> Tensor:
        """pi/pi_old; 1 outside the mask."""
        return (self.stats.logp - self.old_logp).where(self.mask, 0).exp()

    @property
    def clipped_low(self) -> Tensor:
        """Whether the band cuts the token's gradient at its lower side."""
        return (self.ratio < self._limits[0]) & self.mask

    @property
    def clipped_high(self) -> Tensor:
        """Whether the band cuts the token's gradient at its upper side."""
        return (self.ratio > self._limits[1]) & self.mask

    @cached_property
    def _limits(self) -> tuple[Tensor, Tensor]:
        return self.rule.limits(self.old_logp, self.advantages)


class Part(Resumable):
    """One part of a controller; see the module. needs_entropy: whether `observe` reads the entropy."""

    needs_entropy: ClassVar[bool] = False
    progress: float = 0.0
    """Share of the run that is done; the controller keeps it up to date."""

    def observe(self, step: Measured) -> None:
        """Take in a step, once per optimizer step, in order."""

    def clip(self) -> ClipBand | None:
        """The band in force in the next step, from the one part that owns it."""
        return None

    def weights(self, batch: TokenBatch) -> Tensor | None:  # noqa: ARG002
        """A factor >= 0 for each token's advantage (...), detached; None for ones.

        A part that compares tokens depends on how a batch is cut: give it the whole one where that matters.
        """
        return None

    def bonus(self) -> float:
        """The coefficient of the mean entropy in the next step's loss, >= 0."""
        return 0.0

    @property
    def phase(self) -> Phase:
        """What the band in force does to the entropy: a name that a report can draw."""
        return "hold"

    def bands(self) -> Sequence[ClipBand]:
        """The bands between which `clip` moves: what an objective must be able to follow."""
        band = self.clip()
        return () if band is None else (band,)

    @property
    def owns_band(self) -> bool:
        """Whether the part decides on the clip band."""
        return type(self).clip is not Part.clip

    @property
    def weighs(self) -> bool:
        """Whether the part weighs tokens, for which it needs their statistics."""
        return type(self).weights is not Part.weights

    @property
    def pays(self) -> bool:
        """Whether the part may give an entropy bonus, whose gradient flows through the entropy."""
        return type(self).bonus is not Part.bonus


strategy: Registry[Part] = Registry("strategy", Part, "entrostat.control")
weighting: Registry[Part] = Registry("reweighting", Part, "entrostat.control")
bonus: Registry[Part] = Registry("bonus", Part, "entrostat.control")
