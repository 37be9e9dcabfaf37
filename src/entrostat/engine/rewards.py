"""From the verdicts of a rollout batch to one advantage a completion, as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from entrostat.objective import advantages
from entrostat.recipe import UpdateRecipe


class Advantages:
    """The recipe's advantage; holds state only for the EMA baseline."""

    def __init__(self, settings: UpdateRecipe) -> None:
        self.settings = settings
        self.ema = advantages.EmaBaseline()

    def __call__(self, groups: Sequence[Sequence[float | None]]) -> Tensor:
        """Advantages (B,) of rewards 0/1 given group by group, None where there is no reward."""
        rewards = advantages.reward_tensor(groups)
        if self.settings.failure_reward == -1:
            rewards = advantages.signed(rewards)
        match self.settings.advantage:
            case "grpo":
                found = advantages.grpo(rewards)
            case "dr-grpo":
                found = advantages.dr_grpo(rewards)
            case "qae":
                found = advantages.quantile(rewards)
            case "w-reinforce":
                found = advantages.w_reinforce(rewards)
            case "reinforce":
                baseline = self.settings.baseline
                found = advantages.reinforce(rewards, self.ema if baseline == "ema" else baseline)
        return found.flatten()

    def state_dict(self) -> dict[str, Any]:
        """The EMA baseline's state, JSON-able."""
        return dict(self.ema.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.ema.load_state_dict(state)
