"""slime: --loss-type custom_loss --custom-loss-function-path entrostat.integrations.losses.slime.loss_function \\
    --custom-megatron-before-train-step-hook-path entrostat.integrations.losses.slime.before_train_step

slime's own `policy_loss_function` runs, reading our thresholds as args.eps_clip and args.eps_clip_high: its TIS, OPSM,
KL, dual clip, context parallelism and reducers are untouched. Tier B: the entropy is that of slime's own forward pass.
A step is one of its rollouts. A strategy that follows the entropy writes its state at the start of every rollout to
SAVE/entrostat/rollout_N.json, from which a run resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import Control, EntropySteering, Overlay, refuse, steering

TIER = "B"
HOST = "slime"
LOSS = "slime.backends.megatron_utils.loss"
ESTIMATORS = ("grpo", "ppo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")

_rollout: int | None = None


def before_train_step(
    args: Any,
    rollout_id: int,
    step_id: int,  # noqa: ARG001
    model: Any,  # noqa: ARG001
    optimizer: Any,  # noqa: ARG001
    opt_param_scheduler: Any,  # noqa: ARG001
) -> None:
    """Record the number of the current rollout; after a resume, slime continues its count from the checkpoint.

    A strategy that follows the entropy then observes the previous rollout, on every rank. Raises ValueError if
    a resumed run has no state for it.
    """
    global _rollout
    control = steering("B")
    if isinstance(control, EntropySteering) and rollout_id != _rollout:
        if control.step is None and rollout_id > 0:
            control.load_state_dict(_saved_state(args, rollout_id))
        control.begin_step(rollout_id)
        _save_state(args, control)
    _rollout = rollout_id


def loss_function(
    args: Any, batch: Mapping[str, Any], logits: Tensor, sum_of_sample_mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """slime's policy loss and metrics under the thresholds of the current rollout. See `steered_loss` for errors."""
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

    If the batch has no old log-probabilities, they are those of this forward pass: every ratio is 1, and the
    thresholds are unchanged. Raises ValueError for an advantage estimator whose ratio is not a token's, and if the hook
    that reports the rollout is not set.
    """
    refuse(host, {"advantage_estimator": (args.advantage_estimator, ESTIMATORS)})
    if _rollout is None:
        raise ValueError(
            f"{host}: custom_megatron_before_train_step_hook_path does not lead to entrostat, which then cannot tell "
            f"the step; set it to entrostat.integrations.{host}.before_train_step"
        )
    control, module = steering("B"), import_module(home)
    old = batch["rollout_log_probs"] if args.use_rollout_logprobs else batch.get("log_probs")
    if old:
        low, high = control.thresholds(_rollout, torch.cat(list(old)))
        args = Overlay(args, eps_clip=low, eps_clip_high=high)
    with _recorded(control, host, module, args, batch):
        found: tuple[Tensor, dict[str, Tensor]] = module.policy_loss_function(args, batch, logits, sum_of_sample_mean)
    return found


@contextmanager
def _recorded(control: Control, host: str, home: Any, args: Any, batch: Any) -> Iterator[None]:
    """While the host's loss runs, record the entropy of its forward pass, if the strategy follows the entropy."""
    if not isinstance(control, EntropySteering):
        yield
        return
    refuse(host, {"context_parallel_size": (getattr(args, "context_parallel_size", 1), (1,))})
    plain = home.get_log_probs_and_entropy

    def tapped(*given: Any, **named: Any) -> Any:
        found = plain(*given, **named)
        parts = found[1] if isinstance(found, tuple) else found
        if "entropy" not in parts:
            raise ValueError(f"{host}: observe_training_entropy is False, and the strategy follows it; set it")
        control.record(torch.cat(list(parts["entropy"])), torch.cat(list(batch["loss_masks"])))
        return found

    home.get_log_probs_and_entropy = tapped
    try:
        yield
    finally:
        home.get_log_probs_and_entropy = plain


def _state_file(folder: str, rollout: int) -> Path:
    return Path(folder) / "entrostat" / f"rollout_{rollout}.json"


def _save_state(args: Any, control: EntropySteering) -> None:
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if first and getattr(args, "save", None):
        assert control.step is not None
        file = _state_file(args.save, control.step)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(control.state_dict(), allow_nan=False))


def _saved_state(args: Any, rollout: int) -> Any:
    """The state at the rollout's start, or at the previous one if a run was killed between two checkpoints."""
    folders = [folder for folder in (getattr(args, "load", None), getattr(args, "save", None)) if folder]
    files = [_state_file(folder, number) for number in (rollout, rollout - 1) for folder in folders]
    for file in files:
        if file.exists():
            return json.loads(file.read_text())
    raise ValueError(
        f"slime resumes at rollout {rollout}, and the strategy's state is in none of "
        f"{', '.join(map(str, files)) or 'load and save, which are not set'}; start a new run from the weights"
    )
