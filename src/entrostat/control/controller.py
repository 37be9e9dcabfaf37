"""The one object a trainer uses: it records the entropy of each optimizer step and sets what the next one uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from entrostat.control.mismatch import Corrected
from entrostat.control.part import Measured, Part, Phase, State, TokenBatch
from entrostat.control.strategies import Constant, progress
from entrostat.objective import ClipBand, ClipRule, Correction
from entrostat.tokens import TokenStats


class EntropyController:
    """Turns the measured entropy into a clip rule, weights for the advantages and the coefficient of a bonus.

        EntropyController(IncreaseThenDecrease(), HighEntropyTokens(0.2), AdaptiveBonus(target=0.2))

    parts: each decides on what it implements. At most one part owns the clip band, or is a clip rule; without one the
    band is the constant .2. A correction is a part too. Weights multiply, bonuses add. total_steps: optimizer steps of
    the run, >= 1; None if the trainer sets them by `begin`. ema: beta of the smoothed entropy E <- beta E +
    (1 - beta) H that all parts receive, starting at the first H; 0 leaves it as measured. The form
    EntropyController(strategy, total_steps, reweighting=..., bonus=...) is accepted too.
    Raises ValueError for ema outside [0, 1), total_steps < 1 and two parts that own the band.
    """

    def __init__(
        self,
        *parts: Part | ClipBand | Correction | int,
        total_steps: int | None = None,
        ema: float = 0.0,
        strategy: Part | None = None,
        reweighting: Part | None = None,
        bonus: Part | None = None,
    ) -> None:
        if not 0 <= ema < 1:
            raise ValueError(f"EntropyController.ema is {ema}; give a number in [0, 1)")
        self.ema = ema
        self.parts = _parts([part for part in (*parts, strategy, reweighting, bonus) if not isinstance(part, int)])
        counts = [part for part in parts if isinstance(part, int)]
        self._step = 0
        self._smoothed: float | None = None
        self._metrics: dict[str, Any] = {}
        self.begin(counts[0] if counts else total_steps)

    def begin(self, total_steps: int | None) -> None:
        """Set the run's number of optimizer steps; the current step stays. Raises ValueError below 1."""
        self._done = progress(self._step, 1 if total_steps is None else total_steps)
        self.total_steps = total_steps
        self._set_progress()

    @property
    def strategy(self) -> Part:
        """The part that owns the clip band."""
        return next(part for part in self.parts if part.owns_band)

    @property
    def reweighting(self) -> Part | None:
        """The first part that weights tokens and is not a correction, or None."""
        return next((part for part in self.parts if part.weighs and not isinstance(part, Corrected)), None)

    @property
    def corrections(self) -> tuple[Corrected, ...]:
        """The parts that correct for the policy that sampled."""
        return tuple(part for part in self.parts if isinstance(part, Corrected))

    @property
    def weighs(self) -> bool:
        """Whether `weights` may differ from ones: a reweighting or a correction is present."""
        return any(part.weighs for part in self.parts)

    @property
    def bonus(self) -> Part | None:
        """The first part that may give an entropy bonus, or None."""
        return next((part for part in self.parts if part.pays), None)

    @property
    def phase(self) -> Phase:
        """What the rule in force is meant to do to the entropy: "increase", "decrease" or "hold"."""
        self._set_progress()
        return self.strategy.phase

    def observe(
        self,
        step: int,
        entropy_sum: float,
        token_count: float,
        *,
        kl_old: float | None = None,
        kl_reference: float | None = None,
        kl_sampler: float | None = None,
        pass_rate: float | None = None,
    ) -> None:
        """Record an optimizer step; every part updates its decision for the next one.

        step: optimizer steps done, including this one, so 1 after the first. entropy_sum: sum of H over the step's
        tokens in nats; token_count: their number; both all-reduced over micro-batches and ranks. The others are as in
        `Measured`, None if not measured.
        Raises ValueError, with unchanged state, for a step that is not larger than the last, for a count that is not
        positive, for an entropy that is not finite, and if total_steps is not set.
        """
        if self.total_steps is None:
            raise ValueError(
                "EntropyController.total_steps is None and no trainer set it; give the run's optimizer steps"
            )
        if step <= self._step:
            raise ValueError(f"step is {step} after step {self._step}; call observe once per optimizer step, in order")
        if not token_count > 0:
            raise ValueError(f"token_count is {token_count} at step {step}; do not observe a step without tokens")
        entropy = float(entropy_sum) / float(token_count)
        if not math.isfinite(entropy):
            raise ValueError(
                f"entropy is {entropy} at step {step}: the policy's logits are broken; "
                "go back to the last checkpoint and lower the learning rate"
            )
        past = entropy if self._smoothed is None else self._smoothed
        smoothed = self.ema * past + (1 - self.ema) * entropy
        in_force = {"bounds": _thresholds(self.rule()), "phase": self.phase, "entropy_coef": self.entropy_coef()}
        in_force |= {name: value for name, value in self._steering().items() if value is not None}
        self._done = progress(step, self.total_steps)
        self._set_progress()
        measured = Measured(step, self._done, smoothed, kl_old, kl_reference, kl_sampler, pass_rate)
        for part in self.parts:
            part.observe(measured)
        self._step, self._smoothed = step, smoothed
        self._metrics = {"entropy": entropy, "entropy_smoothed": smoothed, **in_force}

    def advance(self, step: int) -> None:
        """Set the optimizer steps done, without a measurement: schedules move, and no part observes anything.

        For trainers that measure no entropy, and for a resumed run. Raises ValueError for a step before the current one
        and if total_steps is not set.
        """
        if self.total_steps is None or step < self._step:
            raise ValueError(f"step is {step} after step {self._step} of {self.total_steps}; advance in order")
        self._step, self._done = step, progress(step, self.total_steps)
        self._set_progress()

    def rule(self) -> ClipBand:
        """The clip rule in force for the next optimizer step."""
        self._set_progress()
        band = self.strategy.clip()
        if band is None:
            raise ValueError(f"{type(self.strategy).__name__}.clip returned None; give the band that it owns")
        return band

    def weights(
        self,
        stats: TokenStats,
        advantages: Tensor,
        mask: Tensor | None = None,
        *,
        old_logp: Tensor | None = None,
        sampler_logp: Tensor | None = None,
        token_weights: Tensor | None = None,
        sequences: Tensor | None = None,
        old_entropy: Tensor | None = None,
    ) -> Tensor:
        """Factors >= 0 for the advantages of the next optimizer step, (...), detached; 1 outside the mask.

        mask (...): the tokens that count in the statistics of the batch, all by default. old_logp: ln pi_old, by
        default stats.logp; the others as in `TokenBatch`. Raises ValueError for a correction without sampler_logp.
        """
        given = {"sampler_logp": sampler_logp, "sequences": sequences, "old_entropy": old_entropy}
        return _product(self.parts, self._batch(stats, advantages, mask, old_logp, token_weights, **given))

    def advantages(self, stats: TokenStats, advantages: Tensor, mask: Tensor, **given: Tensor | None) -> Tensor:
        """The advantages of the next optimizer step (...): those that a part sets from the rewards, times `weights`.

        given: the fields of `TokenBatch` that the trainer has; old_logp is one of them. For trainers that have the
        rewards; the others multiply by `weights`.
        """
        batch = self._batch(stats, advantages, mask, **given)
        for part in self.parts:
            own = part.advantages(batch)
            batch = batch if own is None else replace(batch, advantages=own)
        return batch.advantages * _product(self.parts, batch)

    @property
    def adds(self) -> bool:
        """Whether a part adds a term of its own to the loss."""
        return any(part.adds for part in self.parts)

    def unclipped(
        self, stats: TokenStats, advantages: Tensor, mask: Tensor, token_weights: Tensor | None = None
    ) -> Tensor:
        """The sum of the parts' coefficients c (...) of a term -c pi/pi_old per token, detached; 0 outside the mask.

        token_weights: see `TokenBatch`.
        """
        batch = self._batch(stats, advantages, mask, token_weights=token_weights)
        total = torch.zeros_like(stats.logp)
        for part in self.parts:
            own = part.unclipped(batch)
            total = total if own is None else total + own
        return total.where(batch.mask, 0)

    def corrected(
        self, stats: TokenStats, advantages: Tensor, mask: Tensor | None = None, **given: Tensor | None
    ) -> Tensor:
        """The part of `weights` that corrects for the policy that sampled; arguments as there."""
        return _product(self.corrections, self._batch(stats, advantages, mask, **given))

    def _batch(
        self,
        stats: TokenStats,
        advantages: Tensor,
        mask: Tensor | None,
        old_logp: Tensor | None = None,
        token_weights: Tensor | None = None,
        **given: Tensor | None,
    ) -> TokenBatch:
        """The batch that parts see, with the defaults that `weights` names."""
        return TokenBatch(
            stats,
            advantages,
            torch.ones_like(stats.logp, dtype=torch.bool) if mask is None else mask.bool(),
            stats.logp.detach() if old_logp is None else old_logp,
            self.rule(),
            torch.ones_like(stats.logp) if token_weights is None else token_weights,
            **given,
        )

    def entropy_coef(self) -> float:
        """The coefficient of an entropy bonus in the next step's loss, 0 for none."""
        self._set_progress()
        return sum(part.bonus() for part in self.parts)

    def _set_progress(self) -> None:
        """Set every part's progress before each query, because two controllers may share a schedule."""
        for part in self.parts:
            part.progress = self._done

    def _steering(self) -> dict[str, float | None]:
        """The entropy steered to and the action taken, each by the first part that has it."""
        return {
            "entropy_target": next((part.aim for part in self.parts if part.aim is not None), None),
            "entropy_push": next((part.push for part in self.parts if part.push is not None), None),
        }

    def metrics(self) -> dict[str, Any]:
        """The record of the observed step: its entropy, measured and smoothed, and what was in force: the phase, the
        coefficient of the bonus, as "bounds" the slopes and intercepts of the clip rule's thresholds (None for a rule
        without linear thresholds), and, where a part steers, its `entropy_target` in nats and its `entropy_push` in
        [-1, 1]. Empty before the first step.
        """
        return dict(self._metrics)

    def state_dict(self) -> State:
        """Everything that a resumed run needs, JSON-able."""
        return {
            "step": self._step,
            "total_steps": self.total_steps,
            "entropy_smoothed": self._smoothed,
            "parts": [{"class": type(part).__name__, "state": part.state_dict()} for part in self.parts],
        }

    def load_state_dict(self, state: Mapping[str, Any], *, extended: bool = False) -> None:
        """Continue from a `state_dict`.

        extended: the length of the run was changed on purpose, and the schedule is stretched over the new steps.
        Raises ValueError, with unchanged state, if `state` belongs to other parts or, unless `extended`, to a run with
        another number of steps.
        """
        saved = state["parts"]
        saved = list(saved.values()) if isinstance(saved, Mapping) else saved  # older states have one part per role
        theirs, ours = [part["class"] for part in saved], [type(part).__name__ for part in self.parts]
        if theirs != ours:
            raise ValueError(
                f"controller state: saved by {', '.join(theirs)}; the recipe has {', '.join(ours)}; "
                "resume with the recipe of the run"
            )
        before = state.get("total_steps")
        if self.total_steps is not None and before not in (None, self.total_steps) and not extended:
            raise ValueError(
                f"total_steps is {self.total_steps}, but the resumed run had {before}: every schedule would "
                f"jump; resume with {before} steps, or load the state as extended"
            )
        for part, one in zip(self.parts, saved, strict=True):
            part.load_state_dict(one["state"])
        self._step, self._smoothed = state["step"], state["entropy_smoothed"]
        self.begin(before if self.total_steps is None else self.total_steps)


def _product(parts: Sequence[Part], batch: TokenBatch) -> Tensor:
    """The product of the parts' weights, 1 outside the mask."""
    factors = torch.ones_like(batch.stats.logp)
    for part in (part for part in parts if part.weighs):
        weights = part.weights(batch)
        if weights is not None:
            factors = factors * weights
    return factors.where(batch.mask, 1)


def _parts(given: list[Part | ClipBand | Correction | None]) -> tuple[Part, ...]:
    """The parts, the owner of the band first. Raises ValueError if two own it."""
    parts = [_as_part(part) for part in given if part is not None]
    owners = [part for part in parts if part.owns_band]
    if len(owners) > 1:
        names = " and ".join(type(part).__name__ for part in owners)
        raise ValueError(f"EntropyController: {names} each own the clip band; keep one of them")
    return (*(owners or [Constant()]), *(part for part in parts if not part.owns_band))


def _as_part(given: Part | ClipBand | Correction) -> Part:
    match given:
        case ClipBand():
            return Constant(given)
        case Correction():
            return Corrected(given)
    return given


def _thresholds(rule: ClipBand) -> dict[str, float] | None:
    if not isinstance(rule, ClipRule):
        return None
    return {
        "upper_slope": rule.upper.slope,
        "upper_intercept": rule.upper.intercept,
        "lower_slope": rule.lower.slope,
        "lower_intercept": rule.lower.intercept,
    }
