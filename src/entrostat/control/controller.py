"""The one object a trainer talks to: it hears the entropy of each optimizer step, and answers for the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from entrostat.control.bonus import Bonus
from entrostat.control.reweighting import Reweighting
from entrostat.control.state import Resumable, State
from entrostat.control.strategies import Phase, Strategy, progress
from entrostat.objective import ClipBand, ClipRule
from entrostat.tokens import TokenStats


class EntropyController:
    """Turns the measured entropy into a clip rule, weights for the advantages and the coefficient of a bonus.

    strategy: which clip rule is in force when. total_steps: optimizer steps of the run, >= 1; None where the trainer
    tells them by `begin`. reweighting: factors for the advantages, None for ones. bonus: the coefficient of an entropy
    bonus, None for none. ema: beta of the smoothed entropy E <- beta E + (1 - beta) H that all of them see, from the
    first H on; 0 leaves it as measured.
    Raises ValueError for ema outside [0, 1) and total_steps < 1.
    """

    def __init__(
        self,
        strategy: Strategy,
        total_steps: int | None = None,
        *,
        reweighting: Reweighting | None = None,
        bonus: Bonus | None = None,
        ema: float = 0.0,
    ) -> None:
        if not 0 <= ema < 1:
            raise ValueError(f"EntropyController.ema is {ema}; give a number in [0, 1)")
        self.strategy, self.ema = strategy, ema
        self.reweighting, self.bonus = reweighting, bonus
        self._step = 0
        self._smoothed: float | None = None
        self.begin(total_steps)
        self._metrics: dict[str, Any] = {}

    def begin(self, total_steps: int | None) -> None:
        """Take the run's optimizer steps; the rule in force is that of the present step. ValueError below 1."""
        self.total_steps = total_steps
        progress(self._step, self._horizon())
        self._rule: ClipBand = self.strategy.rule(self._step, self._horizon(), self._smoothed)

    @property
    def phase(self) -> Phase:
        """What the rule in force does to the entropy: "increase", "decrease" or "hold"."""
        return self.strategy.phase(self._step, self._horizon())

    def observe(self, step: int, entropy_sum: float, token_count: float) -> None:
        """Hear the entropy of an optimizer step and decide for the next one.

        step: optimizer steps done, this one included, so 1 after the first. entropy_sum: sum of H over the step's
        tokens in nats; token_count: their number; both all-reduced over micro-batches and ranks.
        Raises ValueError, with the state as it was, for a step that is not larger than the last, for a count that is
        not positive, for an entropy that is not finite, and where nobody told total_steps.
        """
        if step <= self._step:
            raise ValueError(f"step is {step} after step {self._step}; call observe once an optimizer step, in order")
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
        if self.total_steps is None:
            raise ValueError("EntropyController.total_steps was left out, and no trainer told it; give the run's steps")
        in_force = {"bounds": _thresholds(self._rule), "phase": self.phase, "entropy_coef": self.entropy_coef()}
        self._rule = self.strategy.rule(step, self.total_steps, smoothed)
        for listener in (self.reweighting, self.bonus):
            if listener is not None:
                listener.observe(smoothed, progress(step, self.total_steps))
        self._step, self._smoothed = step, smoothed
        self._metrics = {"entropy": entropy, "entropy_smoothed": smoothed, **in_force}

    def rule(self) -> ClipBand:
        """The clip rule in force for the next optimizer step."""
        return self._rule

    def weights(self, stats: TokenStats, advantages: Tensor, mask: Tensor | None = None) -> Tensor:
        """Factors >= 0 for the advantages of the next optimizer step, (...), detached.

        mask (...): the tokens that count in the statistics of the batch, all by default.
        """
        if self.reweighting is None:
            return torch.ones_like(stats.logp)
        everything = torch.ones_like(stats.logp, dtype=torch.bool)
        return self.reweighting.weights(stats, advantages, everything if mask is None else mask.bool())

    def entropy_coef(self) -> float:
        """The coefficient of an entropy bonus in the next step's loss, 0 for none."""
        return 0.0 if self.bonus is None else self.bonus.coefficient()

    def metrics(self) -> dict[str, Any]:
        """The record of the observed step: its entropy, smoothed too, and what was in force: the phase's name, the
        bonus's coefficient, and as "bounds" the slopes and intercepts of the clip rule's thresholds (None for a rule
        without). Empty before the first step.
        """
        return dict(self._metrics)

    def state_dict(self) -> State:
        """Everything that a resumed run needs, JSON-able."""
        return {
            "step": self._step,
            "total_steps": self.total_steps,
            "entropy_smoothed": self._smoothed,
            "parts": {
                role: {"class": type(part).__name__, "state": part.state_dict()} for role, part in self._parts().items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any], *, extended: bool = False) -> None:
        """Continue from a `state_dict`.

        extended: the run is made longer or shorter on purpose, and the schedule is stretched over its new steps.
        Raises ValueError, with the state as it was, when it belongs to another strategy, reweighting or bonus, or,
        unless `extended`, to a run of another number of steps.
        """
        parts = self._parts()
        saved = {role: part["class"] for role, part in state["parts"].items()}
        if saved != (ours := {role: type(part).__name__ for role, part in parts.items()}):
            raise ValueError(
                f"controller state: it was saved by {saved}, the recipe has {ours}; "
                "resume with the recipe that the run began with"
            )
        before = state.get("total_steps")
        if self.total_steps is None:
            self.total_steps = before
        elif before not in (None, self.total_steps) and not extended:
            raise ValueError(
                f"total_steps is {self.total_steps}, and the run that is resumed had {before}: every schedule would "
                f"jump; resume with {before} steps, or say that the run is extended on purpose"
            )
        for role, part in parts.items():
            part.load_state_dict(state["parts"][role]["state"])
        self._step, self._smoothed = state["step"], state["entropy_smoothed"]
        self._rule = self.strategy.rule(self._step, self._horizon(), self._smoothed)

    def _horizon(self) -> int:
        """total_steps; while nobody has told it no step is done, and the share of the run that is done is 0 anyhow."""
        return 1 if self.total_steps is None else self.total_steps

    def _parts(self) -> dict[str, Resumable]:
        parts = {"strategy": self.strategy, "reweighting": self.reweighting, "bonus": self.bonus}
        return {role: part for role, part in parts.items() if part is not None}


def _thresholds(rule: ClipBand) -> dict[str, float] | None:
    if not isinstance(rule, ClipRule):
        return None
    return {
        "upper_slope": rule.upper.slope,
        "upper_intercept": rule.upper.intercept,
        "lower_slope": rule.lower.slope,
        "lower_intercept": rule.lower.intercept,
    }
