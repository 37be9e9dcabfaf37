"""miles, a fork of slime with the same hooks:

    --loss-type custom_loss --custom-loss-function-path entrostat.integrations.losses.miles.loss_function \\
    --custom-megatron-before-train-step-hook-path entrostat.integrations.losses.miles.before_train_step

miles' own `policy_loss_function` runs under our control; see `slime.py`. Tier C. A step is one of its rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from entrostat.integrations.losses.slime import Reducer, before_train_step, steered_loss
from entrostat.integrations.losses.steering import Tier

__all__ = ["before_train_step", "loss_function"]

TIER: Tier = "C"
HOST = "miles"
LOSS = "miles.backends.training_utils.loss_hub.losses"
RESPONSES = "miles.backends.training_utils.loss_hub.logit_processors"


def loss_function(
    args: Any, batch: Mapping[str, Any], logits: Tensor, sum_of_sample_mean: Reducer
) -> tuple[Tensor, dict[str, Tensor]]:
    """miles' policy loss and metrics under the control of the current rollout."""
    home = import_module(LOSS)

    def group() -> Any:
        return home.get_parallel_state().tp.group

    responses = import_module(RESPONSES).get_responses
    return steered_loss(HOST, home, responses, group, args, batch, logits, sum_of_sample_mean)
