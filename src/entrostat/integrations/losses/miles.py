"""miles, a fork of slime with the same hooks:

    --loss-type custom_loss --custom-loss-function-path entrostat.integrations.losses.miles.loss_function \\
    --custom-megatron-before-train-step-hook-path entrostat.integrations.losses.miles.before_train_step

miles' own `policy_loss_function` runs under our thresholds; see `slime.py`. Tier B. A step is one of its rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from entrostat.integrations.losses.slime import before_train_step, steered_loss

__all__ = ["before_train_step", "loss_function"]

TIER = "B"
HOST = "miles"
LOSS = "miles.backends.training_utils.loss_hub.losses"


def loss_function(
    args: Any, batch: Mapping[str, Any], logits: Tensor, sum_of_sample_mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """miles' policy loss and metrics under the thresholds of the current rollout."""
    return steered_loss(HOST, LOSS, args, batch, logits, sum_of_sample_mean)
