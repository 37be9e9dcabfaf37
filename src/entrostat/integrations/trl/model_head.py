"""The token statistics, computed at the output layer of a Hugging Face causal model.

A wrapper (DDP, FSDP, PEFT, accelerate's autocast) must see the forward pass of the model that it wraps, so the head is
put inside: the model's own `forward` gets one more keyword argument, and without it is unchanged.
"""

from __future__ import annotations

import functools
import types
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from entrostat.entropy import bonus_flow
from entrostat.tokens import fused_token_stats

COMPARED = 8
ROWS_AT_A_TIME = 1024  # of logits, where they are needed for the flow of an entropy bonus
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}  # of the largest logit; other types 2 %
REMEDY = "set statistics='logits'"


def attach_statistics(model: Any, temperature: float, *, in_float32: bool = False) -> None:
    """Let `model(..., scored_ids=ids)` return (ln p, H, sum p^2, C) of the last tokens, each (B, T), and no logits.

    ids (B, T): the last T of the input's tokens. `entropy_grad=True` lets gradients through H and adds a fifth
    statistic, sum_x S_x^2 (see `entrostat.entropy.bonus_flow`), (B, T). temperature: logits are divided by it.
    in_float32: compute the output layer in float32 even under autocast.
    Raises ValueError for an output layer that is not a plain linear one, and where that layer over the last hidden
    state, soft-capped as the configuration says, does not give the model's own logits on a few tokens. They are
    compared now, or at the first scored pass where the weights are not there yet (on the meta device).
    """
    refuse_unusual_head(model)
    original = model.forward
    compared = not any(parameter.is_meta for parameter in model.parameters())
    if compared:
        refuse_other_logits(model, original)

    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, scored_ids: Tensor | None = None, entropy_grad: bool = False, **kwargs: Any
    ) -> Any:
        nonlocal compared
        if scored_ids is None:
            return original(*args, **kwargs)
        if not compared:
            refuse_other_logits(self, original)
            compared = True
        states = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        hidden = states[:, -scored_ids.shape[1] - 1 : -1].to(head.weight.device)
        weight, bias = _whole(head.weight), _whole(head.bias)
        if torch.is_autocast_enabled(hidden.device.type) and not in_float32:
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            stats = fused_token_stats(
                hidden, weight, scored_ids.to(hidden.device), bias, temperature, entropy_grad, softcap=_softcap(self)
            )
        found = stats.logp, stats.entropy, stats.collision, stats.correction
        return (*found, _push(hidden, weight, bias, temperature, _softcap(self))) if entropy_grad else found

    model.forward = types.MethodType(forward, model)


def refuse_unusual_head(model: Any) -> None:
    """Raise ValueError unless the output layer is a plain linear one."""
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        raise ValueError(
            f"statistics is 'head', but the output layer of {type(model).__name__} is a {type(head).__name__}, not a "
            f"plain torch.nn.Linear; {REMEDY}"
        )


@torch.no_grad()
def refuse_other_logits(model: Any, forward: Any) -> None:
    """Raise ValueError unless the output layer over the last hidden state gives the logits of `forward`.

    Models that scale, shift, cap, mask or mix their logits differ, and so do those whose base model cannot be run by
    itself. Compared on one row of a few tokens, without dropout.
    """
    name, training = type(model).__name__, model.training
    ids = _ordinary_tokens(model)
    model.eval()
    try:
        with torch.autocast(ids.device.type, enabled=False):
            expected = forward(input_ids=ids).logits.double()
            states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            head = model.get_output_embeddings()
            from_head = torch.nn.functional.linear(
                states.to(head.weight.device), _whole(head.weight), _whole(head.bias)
            )
    except Exception as error:
        raise ValueError(
            f"statistics is 'head', but {name} did not run on a few tokens ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0][:200]}); {REMEDY}"
        ) from error
    finally:
        model.train(training)
    capped = from_head.double()
    if softcap := _softcap(model):
        capped = softcap * (capped / softcap).tanh()
    capped = capped.to(expected.device)
    if expected.shape != capped.shape:
        raise ValueError(
            f"statistics is 'head', but the logits of {name} have the shape {tuple(expected.shape)} and its output "
            f"layer's {tuple(capped.shape)}; {REMEDY}"
        )
    gap, size = float((expected - capped).abs().max()), float(expected.abs().max())
    if not gap <= TOLERANCE.get(from_head.dtype, 0.02) * size:
        raise ValueError(
            f"statistics is 'head', but the logits of {name} are not its output layer over the last hidden state: they "
            f"differ by {gap:.3g} where the largest is {size:.3g}; {REMEDY}"
        )


@torch.no_grad()
def _push(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, softcap: float | None) -> Tensor:
    """sum_x S_x^2 of every position of hidden (B, T, D), with the logits of some rows at a time in memory."""
    rows = hidden.flatten(0, -2)
    parts = []
    for some in torch.split(rows, ROWS_AT_A_TIME):
        logits = torch.nn.functional.linear(some, weight, bias).float()
        logits = logits if softcap is None else softcap * (logits / softcap).tanh()
        parts.append(bonus_flow(logits[None], temperature)[0])
    return torch.cat(parts).view(hidden.shape[:-1])


def _softcap(model: Any) -> float | None:
    return cast("float | None", getattr(model.config.get_text_config(), "final_logit_softcapping", None))


def _ordinary_tokens(model: Any) -> Tensor:
    """(1, COMPARED) ids spread over the vocabulary, without those that the configuration names (image, padding)."""
    settings = (model.config, model.config.get_text_config())
    named = {value for one in settings for key, value in vars(one).items() if "token" in key and isinstance(value, int)}
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ordinary = [token for token in range(vocabulary) if token not in named]
    step = max(len(ordinary) // COMPARED, 1)
    return torch.tensor([ordinary[::step][:COMPARED]], device=model.get_input_embeddings().weight.device)


def _whole(parameter: Any) -> Any:
    """The full tensor of a parameter that FSDP2 spreads over ranks."""
    return cast(Any, parameter).full_tensor() if isinstance(parameter, DTensor) else parameter
