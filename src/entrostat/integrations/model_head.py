"""The four token statistics at the output layer of a Hugging Face causal model, where its forward pass ends.

A wrapper (DDP, FSDP, PEFT, accelerate's autocast) must see the forward pass of the model that it wraps, so the head is
put inside: the model's own `forward` gets one more keyword, and without it does what it did.
"""

from __future__ import annotations

import functools
import types
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from entrostat.tokens import TokenStats, fused_token_stats

Scored = tuple[Tensor, Tensor, Tensor, Tensor]

_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def attach_statistics(model: Any, temperature: float, *, in_float32: bool = False) -> None:
    """Let `model(..., scored_ids=ids)` return (ln p, H, sum p^2, C) of the last tokens, each (B, T), and no logits.

    ids (B, T): the last T of the input's tokens. `entropy_grad=True` lets gradients through H. temperature: logits are
    divided by it. in_float32: compute the output layer in float32 under autocast, too.
    Raises ValueError for an output layer that is not a plain linear one over the last hidden state.
    """
    refuse_unusual_head(model)
    original = model.forward
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, scored_ids: Tensor | None = None, entropy_grad: bool = False, **kwargs: Any
    ) -> Any:
        if scored_ids is None:
            return original(*args, **kwargs)
        states = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        hidden = states[:, -scored_ids.shape[1] - 1 : -1].to(head.weight.device)
        weight, bias = _whole(head.weight), _whole(head.bias)
        if torch.is_autocast_enabled(hidden.device.type) and not in_float32:
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            stats = fused_token_stats(
                hidden, weight, scored_ids.to(hidden.device), bias, temperature, entropy_grad, softcap=softcap
            )
        return stats.logp, stats.entropy, stats.collision, stats.correction

    model.forward = types.MethodType(forward, model)


def refuse_unusual_head(model: Any) -> None:
    """Raise ValueError unless the logits are one linear layer of the last hidden state, soft-capped at the most."""
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        raise ValueError(
            f"statistics is 'head', but the output layer of {type(model).__name__} is a {type(head).__name__}, not a "
            "plain torch.nn.Linear; set statistics='logits'"
        )
    settings = model.config.get_text_config()
    for name in _SCALES:
        if getattr(settings, name, None) not in (None, 1, 1.0):
            raise ValueError(
                f"statistics is 'head', but {type(model).__name__} scales its logits ({name} is "
                f"{getattr(settings, name)}); set statistics='logits'"
            )


def as_token_stats(scored: Scored) -> TokenStats:
    """What the forward pass returned, by name."""
    return TokenStats(*scored)


def _whole(parameter: Any) -> Any:
    """The whole of a parameter that FSDP2 spreads over ranks."""
    return cast(Any, parameter).full_tensor() if isinstance(parameter, DTensor) else parameter
