"""What the hosts that hand over log-probabilities alone have in common: the loss of every token under a schedule.

Tier A. A schedule counts the optimizer steps itself and hears no entropy, so strategies that need one are refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat import control
from entrostat.control import Constant, Strategy
from entrostat.objective import ClipBand, PolicyLoss, policy_loss


class Schedule:
    """The clip rule of a strategy over the steps of a run, for a host that cannot be asked for the entropy.

    strategy: one that needs no entropy. total_steps: optimizer steps of the run. advance() after each optimizer step.
    Raises ValueError for a strategy that listens to the entropy.
    """

    tier = "A"

    def __init__(self, strategy: Strategy | None = None, total_steps: int = 1, step: int = 0) -> None:
        chosen = Constant() if strategy is None else strategy
        if not isinstance(chosen, control.Schedule):
            raise ValueError(
                f"strategy is {type(chosen).__name__}, which follows the entropy, and this host hands over "
                "log-probabilities alone (tier A); choose a Schedule, such as Constant or IncreaseThenDecrease"
            )
        self.strategy = chosen
        self.total_steps, self.step = total_steps, step
        self.rule()

    def rule(self) -> ClipBand:
        """The rule in force."""
        return self.strategy.rule(self.step, self.total_steps)

    def advance(self) -> None:
        """One optimizer step is done."""
        self.step += 1

    def loss(self, logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor) -> PolicyLoss | None:
        """The loss of every token, all (...), padded or packed; None where no token counts."""
        return policy_loss(logp, old_logp, advantages, mask, rule=self.rule()) if bool(mask.any()) else None


def clip_fraction(out: PolicyLoss | None, mask: Tensor) -> Tensor:
    """Share of the tokens that a side of the band cuts, a scalar without gradient."""
    if out is None:
        return torch.zeros(())
    return (out.clipped_low | out.clipped_high)[mask.bool()].float().mean()


def masked_mean(per_token: Tensor, mask: Tensor) -> Tensor:
    """sum of the masked tokens / their number, 0 where there is none."""
    return per_token.where(mask.bool(), 0).sum() / mask.sum().clamp_min(1)
