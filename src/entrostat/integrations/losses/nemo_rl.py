"""NeMo RL: a line before grpo_train, in the script that calls it (run_grpo.py):

    loss_fn = entrostat.integrations.losses.nemo_rl.steer(policy, loss_fn, grpo_state, checkpointer)

NeMo RL's own `ClippedPGLossFn` runs, reading our thresholds as ratio_clip_min and ratio_clip_max and our weights in its
advantages: its KL, dual clip, importance corrections, normalisers and metrics are untouched. Tier C: a controller that
needs the entropy or weights tokens gets the logits; the host's own functions then turn them into log-probabilities.
The loss has no entropy coefficient, so there is no bonus. A step is one of grpo_train's, counted by the driver: the
loss is serialised again for every train call and carries the controller. The state is in NeMo RL's checkpoints.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import Steering, Tier, refuse, steering, vocabulary_shard
from entrostat.tokens import TokenStats, VocabShard, token_stats

TIER: Tier = "C"
TRAINING = ("train", "train_from_meta")
STATE = "entrostat_controller"
ENTROPY, TOKENS = "entrostat_entropy", "entrostat_tokens"


def steer(
    policy: Any, loss_fn: Any, save_state: Any, checkpointer: Any = None, control: Steering | None = None
) -> SteeredLoss:
    """The host's loss under our control; it counts the calls of policy.train from the step that was resumed.

    save_state: the grpo_state of `setup`; checkpointer: that of `setup`, needed to resume a controller that follows the
    entropy. control: by default that of ENTROSTAT_CONTROL in this, the driver's process. Raises ValueError for a loss
    whose ratio is not a token's or is not clipped, for a setting under which there are no logits of whole rows, and for
    a checkpoint without the controller's state.
    """
    control = steering(TIER) if control is None else control
    step = max(int(save_state.total_steps), int(getattr(save_state, "current_step", 0)))
    config = getattr(policy, "cfg", {})
    steered = SteeredLoss(loss_fn, control, config)
    if control.follows and step > 0:
        path = checkpointer.get_latest_checkpoint_path() if checkpointer is not None else None
        state = (checkpointer.load_training_info(path) if path is not None else {}).get(STATE)
        if state is None:
            raise ValueError(
                f"NeMo RL resumes at step {step}, and {path or 'checkpointer, which is not given,'} has no state of "
                "the controller; give steer the checkpointer, or start a new run from the weights"
            )
        control.load_state_dict(state)
    control.begin_step(step)
    for name in TRAINING:
        if hasattr(policy, name):
            setattr(policy, name, _counted(getattr(policy, name), steered, save_state))
    return steered


def _counted(plain: Callable[..., Any], steered: SteeredLoss, save_state: Any) -> Callable[..., Any]:
    """A method of the policy that trains with the loss, after which a step is done."""

    @functools.wraps(plain)
    def train(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        if any(one is steered for one in (*args, *kwargs.values())):
            control = steered.control
            if control.follows:
                metrics = found["all_mb_metrics"]
                control.add(sum(metrics.pop(ENTROPY, ())), tokens := sum(metrics.pop(TOKENS, ())))
                if tokens:
                    metrics["entrostat/entropy"] = [float(control.mean())]
            control.begin_step((control.step or 0) + 1)
            if control.follows:
                setattr(save_state, STATE, control.state_dict())
        return found

    return train


class SteeredLoss:
    """NeMo RL's loss object under our control; other attributes are those of the host's object.

    config: the policy's configuration.
    """

    def __init__(self, loss_fn: Any, control: Steering, config: Any = None) -> None:
        names = ("sequence_level_importance_ratios", "use_cispo", "disable_ppo_ratio", "force_on_policy_ratio")
        refuse("NeMo RL", {f"loss_fn.{name}": (getattr(loss_fn, name), (False,)) for name in names})
        self.loss_fn, self.control = loss_fn, control
        self.by_logits = control.weighs or control.follows
        config = {} if config is None else config
        self.megatron = bool(_setting(config, "megatron_cfg", "enabled"))
        self.chunk_size = _setting(config, "logprob_chunk_size") if self.megatron else None
        if self.by_logits:
            backend = "megatron_cfg" if self.megatron else "dtensor_cfg"
            refuse(
                "NeMo RL",
                {
                    "use_linear_ce_fusion_loss": (getattr(loss_fn, "use_fused_linear_logprobs", False), (False,)),
                    "sequence_packing.fuse_loss": (_setting(config, "sequence_packing", "fuse_loss"), (None, False)),
                    "generation.top_k": (_setting(config, "generation", "top_k"), (None, -1)),
                    "generation.top_p": (_setting(config, "generation", "top_p"), (None, 1.0)),
                    f"{backend}.context_parallel_size": (_setting(config, backend, "context_parallel_size"), (None, 1)),
                },
            )

    @property
    def input_type(self) -> Any:
        """What the host's workers hand to the loss: logits where the statistics need them, else as the host's loss."""
        plain = self.loss_fn.input_type
        return type(plain).LOGIT if self.by_logits else plain

    def __call__(
        self, data: Any, global_valid_seqs: Tensor, global_valid_toks: Tensor, **inputs: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """The host's loss and metrics. data: prev_logprobs (B, S), whose first column belongs to no token; inputs: as
        `input_type` says.
        """
        host, control = self.loss_fn, self.control
        metrics: dict[str, float] = {}
        if self.by_logits:
            logits = inputs["logits"]
            inputs, data = self._inputs(logits, data)
            data, metrics = self._weighted(logits, data)
        own = host.ratio_clip_min, host.ratio_clip_max
        host.ratio_clip_min, host.ratio_clip_max = control.thresholds(data["prev_logprobs"][:, 1:], own)
        try:
            loss, found = host(
                data=data, global_valid_seqs=global_valid_seqs, global_valid_toks=global_valid_toks, **inputs
            )
        finally:
            host.ratio_clip_min, host.ratio_clip_max = own
        return loss, {**found, **metrics}

    def _inputs(self, logits: Tensor, data: Any) -> tuple[dict[str, Any], Any]:
        """The log-probabilities of the host's own loss, by the host's own function."""
        from nemo_rl.algorithms.loss.utils import prepare_loss_input

        rank, group, context = self._groups()
        prepared: tuple[dict[str, Any], Any] = prepare_loss_input(
            logits, data, self.loss_fn, rank, group, context, chunk_size=self.chunk_size
        )
        return prepared

    def _groups(self) -> tuple[int | None, Any, Any]:
        if not self.megatron:
            return None, None, None
        from megatron.core import parallel_state as state

        return (
            state.get_tensor_model_parallel_rank(),
            state.get_tensor_model_parallel_group(),
            state.get_context_parallel_group(),
        )

    def _weighted(self, logits: Tensor, data: Any) -> tuple[Any, dict[str, float]]:
        """The batch with weighted advantages, and the sums of the entropy for the driver."""
        mask = (data["token_mask"] * data["sample_mask"].unsqueeze(-1))[:, 1:] > 0
        stats = statistics(logits, data["input_ids"], self._groups()[1])
        metrics: dict[str, float] = {}
        if self.control.follows:
            entropy = stats.entropy[mask].double().sum()
            metrics = {ENTROPY: float(entropy), TOKENS: float(mask.sum())}
        if self.control.weighs:
            advantages = data["advantages"].clone()
            old, sampler = data["prev_logprobs"][:, 1:], data["generation_logprobs"][:, 1:]
            advantages[:, 1:] *= self.control.weights(stats, advantages[:, 1:], mask, old, sampler)
            data = copy.copy(data)
            data["advantages"] = advantages
        return data, metrics

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "loss_fn" not in self.__dict__:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.loss_fn, name)


@torch.no_grad()
def statistics(logits: Any, input_ids: Tensor, group: Any = None) -> TokenStats:
    """The statistics of every token but the first, (B, S - 1).

    logits (B, at least S, V): whole, a part of the vocabulary of a tensor-parallel group, or a DTensor whose vocabulary
    is spread over a mesh.
    """
    local, shard = logits.detach(), None
    if hasattr(logits, "placements"):
        local, shard = local.to_local(), mesh_shard(logits)
    elif group is not None:
        shard = vocabulary_shard(logits.shape[-1], group)
    tokens = input_ids[:, 1:].to(local.device)
    return token_stats(local[:, : tokens.shape[1]], tokens, shard=shard)


def mesh_shard(logits: Any) -> VocabShard | None:
    """This rank's part of the vocabulary of a DTensor. Raises ValueError if another dimension is spread."""
    found, last = None, logits.dim() - 1
    for axis, placement in enumerate(logits.placements):
        if placement.is_replicate() or logits.device_mesh.size(axis) == 1:
            continue
        if not placement.is_shard(last) or found is not None:
            raise ValueError(f"NeMo RL: logits are spread as {logits.placements}; the control needs whole sequences")
        size, ranks = logits.shape[-1], logits.device_mesh.size(axis)
        start = min(-(-size // ranks) * logits.device_mesh.get_local_rank(axis), size)
        found = VocabShard(start, size, logits.device_mesh.get_group(axis))
    return found


def _setting(config: Any, *names: str) -> Any:
    """A nested setting of a mapping or an object, None where a level is missing."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if config is None:
            return None
    return config
