"""slime: --loss-type custom_loss --custom-loss-function-path entrostat.integrations.losses.slime.loss_function \\
    --custom-megatron-before-train-step-hook-path entrostat.integrations.losses.slime.before_train_step

slime's own `policy_loss_function` runs, reading our thresholds as args.eps_clip and args.eps_clip_high, our weights in
its advantages and a bonus as args.entropy_coef: its TIS, OPSM, KL, dual clip, context parallelism and reducers are
untouched. Tier C: the statistics are those of the logits of slime's own forward pass. A step is one of its rollouts. A
controller that follows the entropy writes its state at the start of every rollout to SAVE/entrostat/step_N.json, from
which a run resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import (
    Overlay,
    Tier,
    read_state,
    refuse,
    steering,
    vocabulary_shard,
    write_state,
)
from entrostat.tokens import TokenStats, VocabShard, token_stats

TIER: Tier = "C"
HOST = "slime"
LOSS = "slime.backends.megatron_utils.loss"
COEFFICIENT = "entropy_coef"
ESTIMATORS = ("grpo", "ppo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")

Reducer = Callable[[Tensor], Tensor]

_rollout: int | None = None


def before_train_step(
    args: Any,
    rollout_id: int,
    step_id: int,  # noqa: ARG001
    model: Any,  # noqa: ARG001
    optimizer: Any,  # noqa: ARG001
    opt_param_scheduler: Any,  # noqa: ARG001
) -> None:
    """Begin the step of the current rollout; after a resume, slime continues its count from the checkpoint.

    A controller that follows the entropy then observes the previous rollout, on every rank. Raises ValueError if
    a resumed run has no state for it.
    """
    global _rollout
    control = steering(TIER, COEFFICIENT)
    first = int(getattr(args, "num_critic_only_steps", 0) or 0)
    if control.follows and control.step is None and rollout_id > first:
        control.load_state_dict(
            read_state(HOST, (getattr(args, "load", None), getattr(args, "save", None)), rollout_id)
        )
    if rollout_id != _rollout:
        control.begin_step(rollout_id)
        if control.follows:
            write_state(getattr(args, "save", None), control)
    _rollout = rollout_id


def loss_function(
    args: Any, batch: Mapping[str, Any], logits: Tensor, sum_of_sample_mean: Reducer
) -> tuple[Tensor, dict[str, Tensor]]:
    """slime's policy loss and metrics under the control of the current rollout. See `steered_loss` for errors."""
    home = import_module(LOSS)

    def group() -> Any:
        return home.mpu.get_tensor_model_parallel_group()

    return steered_loss(HOST, home, home.get_responses, group, args, batch, logits, sum_of_sample_mean)


def steered_loss(
    host: str,
    home: Any,
    responses: Callable[..., Any],
    group: Callable[[], Any],
    args: Any,
    batch: Mapping[str, Any],
    logits: Tensor,
    sum_of_sample_mean: Reducer,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`home`'s policy_loss_function with our thresholds, weights and bonus.

    responses: the host's get_responses; group: its tensor-parallel process group. If the batch has no old
    log-probabilities, they are those of this forward pass: every ratio is 1, and the thresholds are unchanged. Raises
    ValueError for an advantage estimator whose ratio is not a token's, for an entropy coefficient of the host beside a
    bonus, and if the hook that reports the rollout is not set.
    """
    refuse(host, {"advantage_estimator": (args.advantage_estimator, ESTIMATORS)})
    if _rollout is None:
        raise ValueError(
            f"{host}: custom_megatron_before_train_step_hook_path does not lead to entrostat, which then cannot tell "
            f"the step; set it to {__name__.rpartition('.')[0]}.{host}.before_train_step"
        )
    control = steering(TIER, COEFFICIENT)
    changed: dict[str, Any] = {}
    old = batch["rollout_log_probs"] if args.use_rollout_logprobs else batch.get("log_probs")
    old_logp = torch.cat(list(old)) if old else None
    if old_logp is not None:
        low, high = control.thresholds(old_logp, (args.eps_clip, args.eps_clip_high))
        changed |= {"eps_clip": low, "eps_clip_high": high}
    if control.pays:
        refuse(host, {COEFFICIENT: (args.entropy_coef, (0,))})
        changed[COEFFICIENT] = control.bonus()
    if control.weighs or control.follows:
        refuse(host, {"allgather_cp": (getattr(args, "allgather_cp", False), (False,))})
        if hasattr(
            home, "get_rollout_top_p_logprob_kwargs"
        ):  # this host masks log-probabilities to the rollout's top p
            refuse(host, {"rollout_top_p": (getattr(args, "rollout_top_p", 1), (1,))})
        stats = statistics(responses, vocabulary_shard(logits.shape[-1], group()), args, batch, logits)
        shares = aggregation(sum_of_sample_mean, stats.logp)
        if control.follows:
            control.record(stats.entropy, shares > 0)
        if control.weighs:
            advantages = torch.cat(list(batch["advantages"]))
            factors = control.weights(
                stats,
                advantages,
                shares > 0,
                stats.logp if old_logp is None else old_logp,
                torch.cat(list(batch["rollout_log_probs"])) if batch.get("rollout_log_probs") else None,
                shares,
            )
            lengths = [len(part) for part in batch["advantages"]]
            batch = {**batch, "advantages": list(torch.split(advantages * factors, lengths))}
    found: tuple[Tensor, dict[str, Tensor]] = home.policy_loss_function(
        Overlay(args, **changed), batch, logits, sum_of_sample_mean
    )
    return found


@torch.no_grad()
def statistics(
    responses: Callable[..., Any], shard: VocabShard | None, args: Any, batch: Mapping[str, Any], logits: Tensor
) -> TokenStats:
    """The statistics of the response tokens of this rank, (N,), in the order of the host's own log-probabilities."""
    widths = {"max_seq_lens": batch["max_seq_lens"]} if batch.get("max_seq_lens") is not None else {}
    temperature = getattr(args, "rollout_temperature", 1.0) or 1.0
    chunks = responses(
        logits.detach(),
        args=Overlay(args, rollout_temperature=1.0),
        unconcat_tokens=batch["unconcat_tokens"],
        total_lengths=batch["total_lengths"],
        response_lengths=batch["response_lengths"],
        **widths,
    )
    parts = [token_stats(part, tokens, temperature, shard=shard) for part, tokens in chunks]
    fields = ("logp", "entropy", "collision", "correction")
    return TokenStats(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def aggregation(sum_of_sample_mean: Reducer, like: Tensor) -> Tensor:
    """The weight of every token in the host's reducer, relative to their mean; 0 for a token that does not count.

    It is the reducer's gradient, so the masks and the slices of context parallelism are the host's.
    """
    with torch.enable_grad():
        probe = torch.zeros_like(like, requires_grad=True)
        (weights,) = torch.autograd.grad(sum_of_sample_mean(probe), probe)
    counted = weights[weights > 0]
    return weights / counted.mean() if counted.numel() else weights
