"""slime: --loss-type custom_loss --custom-loss-function-path entrostat.integrations.slime.loss_function

slime calls fn(args, batch, logits, sum_of_sample_mean) -> (loss, metrics). Packed: logits (1, T, V), in the batch a
list entry a sample for log_probs, advantages and loss_masks. Tier A as shipped: the log-probabilities come from
slime's own vocab-parallel function; its entropy is asked for only where `entropy_coef` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.packed import Schedule, clip_fraction
from entrostat.objective import entropy_bonus

TIER = "A"
SCHEDULE = Schedule()


def loss_function(
    args: Any, batch: Mapping[str, Any], logits: Tensor, sum_of_sample_mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy loss of slime's batch under `SCHEDULE`, summed by slime's own reduction."""
    found = _logp_and_entropy(args, batch, logits)
    logp, entropy = torch.cat(found["log_probs"]), torch.cat(found["entropy"])
    old = batch["rollout_log_probs"] if args.use_rollout_logprobs else batch["log_probs"]
    mask = torch.cat([part.bool() for part in batch["loss_masks"]])
    out = SCHEDULE.loss(logp, torch.cat(old), torch.cat(batch["advantages"]), mask)
    per_token = logp * 0 if out is None else out.per_token
    loss = sum_of_sample_mean(per_token + entropy_bonus(entropy, mask, args.entropy_coef))
    metrics = {
        "loss": loss.detach(),
        "pg_clipfrac": clip_fraction(out, mask),
        "entropy": sum_of_sample_mean(entropy).detach(),
    }
    return loss, metrics


def _logp_and_entropy(args: Any, batch: Mapping[str, Any], logits: Tensor) -> Mapping[str, list[Tensor]]:
    """slime's own function; newer versions return a pair whose second part it is."""
    home = import_module("slime.backends.megatron_utils.loss")
    found = home.get_log_probs_and_entropy(
        logits,
        args=args,
        unconcat_tokens=batch["unconcat_tokens"],
        total_lengths=batch["total_lengths"],
        response_lengths=batch["response_lengths"],
        with_entropy=True,
    )
    answer: Mapping[str, list[Tensor]] = found[1] if isinstance(found, tuple) else found
    return answer
