"""From the verdicts of a rollout batch to one advantage per completion, as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from entrostat.objective.advantages import EmaBaseline, reward_tensor, signed
from entrostat.recipe import UpdateRecipe
from entrostat.recipe.methods import build_advantage


class Advantages:
    """The recipe's advantage, with its state: that of an EMA baseline, or of an advantage that keeps one."""

    def __init__(self, settings: UpdateRecipe) -> None:
        self.settings = settings
        self.ema = EmaBaseline()
        baseline = self.ema if settings.baseline == "ema" else settings.baseline
        self.judge = build_advantage(settings.advantage, baseline)

    def __call__(self, groups: Sequence[Sequence[float | None]]) -> Tensor:
        """Advantages (B,) of rewards 0/1 given group by group, None where there is no reward."""
        rewards = reward_tensor(groups)
        found: Tensor = self.judge(signed(rewards) if self.settings.failure_reward == -1 else rewards)
        if found.shape != rewards.shape or not bool(found.isfinite().all()):
            raise ValueError(
                f"update.advantage {self.settings.advantage!r} made {tuple(found.shape)} of rewards "
                f"{tuple(rewards.shape)}, finite: {bool(found.isfinite().all())}; return one finite number per reward"
            )
        return found.flatten()

    def state_dict(self) -> dict[str, Any]:
        """The state of the baseline and of the advantage, JSON-able."""
        own = self.judge.state_dict() if hasattr(self.judge, "state_dict") else {}
        return {**self.ema.state_dict(), **({"own": own} if own else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.ema.load_state_dict(state)
        if "own" in state:
            self.judge.load_state_dict(state["own"])
