"""The four statistics computed from hidden states and the output matrix, with one block of logits in memory at a time.

One pass over the vocabulary keeps the running sums of `partial`. The backward pass computes each block of logits again
and turns it in place into the gradient of the logits,

    d logp / d z_x = 1[x = a] - p_x        d H / d z_x = -p_x (ln p_x + H)

from which two matrix products give the gradients of hidden and weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from entrostat.tokens import chunks
from entrostat.tokens.checks import check_floating, check_ids, check_maxima, check_positive, check_rows
from entrostat.tokens.chunks import Gradients, Head, compute_dtype
from entrostat.tokens.partial import Upstream, VocabShard, finish, merge
from entrostat.tokens.stats import TokenStats


def fused_token_stats(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    entropy_grad: bool = False,
    *,
    softcap: float | None = None,
    budget: int = 2**28,
    shard: VocabShard | None = None,
) -> TokenStats:
    """Return the statistics of p = softmax(z), z = hidden @ weight^T + bias capped and divided by the temperature.

    Args:
        hidden: (..., D), any floating type; products are summed in float32 (float64 stays float64).
        weight: (V, D), the output matrix.
        token_ids: (...), integers in [0, V).
        bias: (V,); -inf takes a token out of the support.
        temperature: positive; p is the tempered distribution.
        entropy_grad: let gradients flow through the entropy too.
        softcap: positive; y becomes softcap tanh(y / softcap) before the temperature (as in Gemma 2, arXiv 2408.00118).
        budget: bytes of working memory for blocks of logits and weights. In addition, 400 bytes per token are used,
            and a copy, a gradient and a product of hidden in the computing type.
        shard: weight and bias hold only this rank's part of the vocabulary; token_ids stay global. Every rank passes
            the same hidden states and gets the complete statistics and, in backward, the complete gradient of hidden.

    Gradients of hidden, weight and bias flow through logp, through entropy if entropy_grad, through no other.

    Raises:
        ValueError: a shape, an id, the temperature, softcap or budget is out of its range, or a logit is NaN or +inf.
        TypeError: a factor is not floating point or the ids are not integers.
    """
    check_floating(hidden=hidden, weight=weight, bias=bias)
    check_rows("hidden", hidden, token_ids)
    _check_head(hidden, weight, bias)
    check_positive(temperature=temperature, softcap=softcap, budget=budget)
    check_ids(token_ids, len(weight) if shard is None else shard.size)
    options = _Options(temperature, softcap, entropy_grad, budget, shard)
    stats = _FusedStats.apply(hidden, weight, bias, token_ids, options)  # type: ignore[no-untyped-call]
    return TokenStats(*(s.view(token_ids.shape) for s in stats))


@dataclass(frozen=True)
class _Options:
    temperature: float
    softcap: float | None
    entropy_grad: bool
    budget: int
    shard: VocabShard | None


class _FusedStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, token_ids: Tensor, options: _Options
    ) -> tuple[Tensor, ...]:
        head = Head(weight, bias, options.temperature, options.softcap)
        start = 0 if options.shard is None else options.shard.start
        ids = token_ids.reshape(-1).long() - start
        sums = backend(hidden, weight).head_sums(hidden.reshape(-1, hidden.shape[-1]), head, ids, options.budget)
        if options.shard is not None:
            sums = merge(options.shard.gather(sums))
        logp, entropy, collision, correction, log_norm = finish(sums)
        check_maxima(lambda row: _row_logits(hidden[row], head), sums[0].view(token_ids.shape), start)
        ctx.save_for_backward(hidden, weight, bias, ids, log_norm, entropy)
        ctx.options = options
        ctx.mark_non_differentiable(collision, correction, *(() if options.entropy_grad else (entropy,)))
        return logp, entropy, collision, correction

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logp: Tensor, d_entropy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, log_norm, entropy = ctx.saved_tensors
        options: _Options = ctx.options
        upstream = Upstream(log_norm, entropy, d_logp, d_entropy if options.entropy_grad else None)
        head = Head(weight, bias, options.temperature, options.softcap)
        states = hidden.reshape(-1, hidden.shape[-1])
        d_hidden, d_weight, d_bias = (
            torch.empty_like(t) if wanted else None
            for t, wanted in zip((states, weight, bias), ctx.needs_input_grad, strict=False)
        )
        grads = Gradients(d_hidden, d_weight, d_bias)
        backend(hidden, weight).head_grads(states, head, ids, upstream, grads, options.budget)
        if options.shard is not None and d_hidden is not None:
            options.shard.add(d_hidden)
        return None if d_hidden is None else d_hidden.view(hidden.shape), d_weight, d_bias, None, None


def backend(hidden: Tensor, weight: Tensor) -> ModuleType:
    """Return the Triton kernels for bfloat16 and float32 on a GPU, else the PyTorch code, which is their reference."""
    kernel_types = (torch.bfloat16, torch.float32)
    if hidden.is_cuda and hidden.dtype == weight.dtype and hidden.dtype in kernel_types and find_spec("triton"):
        from entrostat.tokens import triton_kernel

        return triton_kernel
    return chunks


def _row_logits(state: Tensor, head: Head) -> Tensor:
    """The logits (V,) of one hidden state (D,)."""
    buffer = torch.empty_like(head.weight, dtype=compute_dtype(state, head.weight))
    return head.part(slice(0, len(buffer)), buffer).logits(state[None].to(buffer.dtype))[0]


def _check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError unless weight is (V, D) with V >= 1 and bias (V,)."""
    if weight.dim() != 2 or len(weight) < 1 or weight.shape[1] != hidden.shape[-1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; allowed: (V >= 1, {hidden.shape[-1]}), since hidden ends in "
            f"{hidden.shape[-1]}. Transpose it, or pass the hidden states that enter the output layer"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}; allowed: ({len(weight)},), one number per row of weight. "
            "Pass the bias of the output layer, or None"
        )
