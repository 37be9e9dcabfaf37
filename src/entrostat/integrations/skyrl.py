"""SkyRL: call register() before the trainer starts, and set trainer.algorithm.policy_loss_type=entrostat

SkyRL calls fn(log_probs, old_log_probs, advantages, config, loss_mask, ...) -> (loss, metrics) with tensors (B, T).
The advantages come divided by the token count of the mini-batch, so the loss is a SUM over tokens: nothing here may
depend on their size. Older versions take a clip ratio in place of the metrics. Tier A.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.packed import Schedule, clip_fraction

TIER = "A"
NAME = "entrostat"
SCHEDULE = Schedule()


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    config: Any = None,  # noqa: ARG001
    loss_mask: Tensor | None = None,
    rollout_logprobs: Tensor | None = None,  # noqa: ARG001
    **_: Any,
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the tokens' losses under `SCHEDULE`."""
    mask = torch.ones_like(log_probs) if loss_mask is None else loss_mask
    out = SCHEDULE.loss(log_probs, old_log_probs, advantages, mask)
    loss = (log_probs * 0).sum() if out is None else out.per_token.sum()
    return loss, {"clip_ratio": clip_fraction(out, mask).item()}


def register() -> None:
    """Put the loss into SkyRL's registry, under the name `entrostat`."""
    try:
        from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry
    except ImportError:
        from skyrl_train.utils.ppo_utils import PolicyLossRegistry
    PolicyLossRegistry.register(NAME, policy_loss)
