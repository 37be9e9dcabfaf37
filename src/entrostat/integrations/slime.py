"""slime: --loss-type custom_loss --custom-loss-function-path entrostat.integrations.slime.loss_function \\
    --custom-megatron-before-train-step-hook-path entrostat.integrations.slime.before_train_step

slime's own `policy_loss_function` runs, reading our thresholds as args.eps_clip and args.eps_clip_high: its TIS, OPSM,
KL, dual clip, context parallelism and reducers are untouched. Tier A. A step is one of its rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.steering import Overlay, refuse, steering

TIER = "A"
HOST = "slime"
LOSS = "slime.backends.megatron_utils.loss"
ESTIMATORS = ("grpo", "ppo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")

_rollout: int | None = None


def before_train_step(
    args: Any,  # noqa: ARG001
    rollout_id: int,
    step_id: int,  # noqa: ARG001
    model: Any,  # noqa: ARG001
    optimizer: Any,  # noqa: ARG001
    opt_param_scheduler: Any,  # noqa: ARG001
) -> None:
    """Note the rollout that is trained on; slime counts on from its checkpoint when it resumes."""
    global _rollout
    _rollout = rollout_id


def loss_function(
    args: Any, batch: Mapping[str, Any], logits: Tensor, sum_of_sample_mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """slime's policy loss and metrics under the thresholds of the present rollout. See `steered_loss` for errors."""
    return steered_loss(HOST, LOSS, args, batch, logits, sum_of_sample_mean)


def steered_loss(
    host: str,
    home: str,
    args: Any,
    batch: Mapping[str, Any],
    logits: Tensor,
    sum_of_sample_mean: Callable[[Tensor], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """`home`'s policy_loss_function with our thresholds.

    Where the batch has no old log-probabilities they are those of this very forward pass: every ratio is 1, and the
    thresholds are left as they are. Raises ValueError for an advantage estimator whose ratio is not a token's, and
    where the hook that tells the rollout is not set.
    """
    refuse(host, {"advantage_estimator": (args.advantage_estimator, ESTIMATORS)})
    if _rollout is None:
        raise ValueError(
            f"{host}: custom_megatron_before_train_step_hook_path does not lead to entrostat, which then cannot tell "
            f"the step; set it to entrostat.integrations.{host}.before_train_step"
        )
    found: Callable[..., tuple[Tensor, dict[str, Tensor]]] = import_module(home).policy_loss_function
    old = batch["rollout_log_probs"] if args.use_rollout_logprobs else batch.get("log_probs")
    if not old:
        return found(args, batch, logits, sum_of_sample_mean)
    low, high = steering().thresholds(_rollout, torch.cat(list(old)))
    return found(Overlay(args, eps_clip=low, eps_clip_high=high), batch, logits, sum_of_sample_mean)
