"""AReaL: engine.train_batch(input_, loss_fn=functools.partial(loss_fn, ...), loss_weight_fn=loss_weight)

AReaL calls loss_fn(logprobs, entropy, input_data, ...) -> loss with packed tensors (N,): in input_data loss_mask,
advantages, logprobs (of the sampler) and, where it is recomputed, prox_logp. It divides by the weights of all micro-
batches itself, so the loss is the mean over this one's tokens. Tier A: the entropy comes without C, and no step can
be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from entrostat.integrations.packed import Schedule, masked_mean

TIER = "A"
SCHEDULE = Schedule()


def loss_fn(logprobs: Tensor, entropy: Tensor, input_data: Mapping[str, Tensor], **_: Any) -> Tensor:  # noqa: ARG001
    """The mean loss of the packed tokens under `SCHEDULE`; pi_old is prox_logp where it is there."""
    mask = input_data["loss_mask"].bool()
    old = input_data.get("prox_logp")
    out = SCHEDULE.loss(logprobs, input_data["logprobs"] if old is None else old, input_data["advantages"], mask)
    return (logprobs * 0).sum() if out is None else masked_mean(out.per_token, mask)


def loss_weight(input_data: Mapping[str, Tensor]) -> Tensor:
    """The number of tokens that count."""
    return input_data["loss_mask"].count_nonzero()
