"""NeMo RL: a line before grpo_train, in the script that calls it (run_grpo.py):

    loss_fn = entrostat.integrations.losses.nemo_rl.steer(policy, loss_fn, grpo_state)

NeMo RL's own `ClippedPGLossFn` runs, reading our thresholds as ratio_clip_min and ratio_clip_max: its KL, dual clip,
importance corrections, normalisers and metrics are untouched. Tier A. A step is one of grpo_train's, counted by the
driver: the loss is serialised again for every train call and carries the step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from entrostat.integrations.losses.steering import Control, refuse, steering

TIER = "A"
TRAINING = ("train", "train_from_meta")


def steer(policy: Any, loss_fn: Any, save_state: Any, control: Control | None = None) -> SteeredLoss:
    """The host's loss under our thresholds; it counts the calls of policy.train from the step that was resumed.

    save_state: the grpo_state of `setup`. control: by default that of ENTROSTAT_CONTROL in this, the driver's process.
    Raises ValueError for a loss whose ratio is not a token's or is not clipped.
    """
    steered = SteeredLoss(loss_fn, steering() if control is None else control, int(save_state.total_steps))
    for name in TRAINING:
        if hasattr(policy, name):
            setattr(policy, name, _counted(getattr(policy, name), steered))
    return steered


def _counted(plain: Callable[..., Any], steered: SteeredLoss) -> Callable[..., Any]:
    """A method of the policy that trains with the loss, after which a step is done."""

    @functools.wraps(plain)
    def train(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        if any(one is steered for one in (*args, *kwargs.values())):
            steered.step += 1
        return found

    return train


class SteeredLoss:
    """NeMo RL's loss object, with the thresholds of step `step`; other attributes are those of the host's object."""

    def __init__(self, loss_fn: Any, control: Control, step: int = 0) -> None:
        refuse(
            "NeMo RL",
            {
                f"loss_fn.{name}": (getattr(loss_fn, name), (False,))
                for name in (
                    "sequence_level_importance_ratios",
                    "use_cispo",
                    "disable_ppo_ratio",
                    "force_on_policy_ratio",
                )
            },
        )
        self.loss_fn, self.control, self.step = loss_fn, control, step

    def __call__(
        self, next_token_logprobs: Tensor, data: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """The host's loss and metrics. data: prev_logprobs (B, S), whose first column belongs to no token."""
        host = self.loss_fn
        plain = host.ratio_clip_min, host.ratio_clip_max
        host.ratio_clip_min, host.ratio_clip_max = self.control.thresholds(self.step, data["prev_logprobs"][:, 1:])
        try:
            found: tuple[Tensor, dict[str, Any]] = host(next_token_logprobs, data, *args, **kwargs)
        finally:
            host.ratio_clip_min, host.ratio_clip_max = plain
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "loss_fn" not in self.__dict__:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.loss_fn, name)
