"""Four numbers per token of a policy: log-probability, entropy, collision probability and correction.

With logits z (V,), p = softmax(z / temperature) and the sampled token a, in natural logarithms:

    logp        ln p_a
    entropy     H = -sum_x p_x ln p_x                       (nats)
    collision   sum_x p_x^2
    correction  C = sum_x p_x^2 (ln p_x + H) = Cov_{x~p}(p_x, ln p_x) >= 0

A policy-gradient step on the logits with advantage A and ratio r moves the entropy by r A (C - p_a (ln p_a + H)) to
first order (arXiv 2602.09782 and 2605.11775), so a diagnosis needs no more than these four.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from entrostat.tokens.checks import check_floating, check_ids, check_maxima, check_positive, check_rows
from entrostat.tokens.chunks import compute_dtype, slices
from entrostat.tokens.partial import FIELDS, Upstream, VocabShard, finish, logit_grads, merge, sum_block

_COLUMNS = 4096


@dataclass(frozen=True)
class TokenStats:
    """The four statistics, each with the shape of the token ids; float32, or float64 if the input was float64.

    A row whose logits are all -inf has no distribution: its logp is -inf and its other statistics are 0.
    """

    logp: Tensor
    entropy: Tensor
    collision: Tensor
    correction: Tensor


def token_stats(
    logits: Tensor,
    token_ids: Tensor,
    temperature: float = 1.0,
    entropy_grad: bool = False,
    *,
    shard: VocabShard | None = None,
) -> TokenStats:
    """Return the statistics of p = softmax(logits / temperature) at the sampled tokens.

    Args:
        logits: (..., V), any floating type; -inf marks a token outside the support. They are not copied as a whole.
        token_ids: (...), integers in [0, V).
        temperature: positive; p is the tempered distribution.
        entropy_grad: let gradients flow through the entropy too.
        shard: logits hold only this rank's part of the vocabulary; token_ids stay global.

    Gradients flow through logp, through entropy if entropy_grad, never through collision and correction.

    Raises:
        ValueError: a shape, an id or the temperature is out of its range, or a logit is NaN or +inf.
        TypeError: the logits are not floating point or the ids not integers.
    """
    check_floating(logits=logits)
    check_rows("logits", logits, token_ids)
    check_positive(temperature=temperature)
    check_ids(token_ids, logits.shape[-1] if shard is None else shard.size)
    stats = _LogitStats.apply(logits, token_ids, temperature, entropy_grad, shard)  # type: ignore[no-untyped-call]
    return TokenStats(*(s.view(token_ids.shape) for s in stats))


class _LogitStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, token_ids: Tensor, temperature: float, entropy_grad: bool, shard: VocabShard | None
    ) -> tuple[Tensor, ...]:
        start = 0 if shard is None else shard.start
        ids = token_ids.reshape(-1).long() - start
        sums = logits.new_empty((FIELDS, len(ids)), dtype=compute_dtype(logits))
        for rows, matrix in _row_blocks(logits):
            vocabs = slices(logits.shape[-1], _COLUMNS)
            parts = sums.new_empty((len(vocabs), FIELDS, len(matrix)))
            for part, vocab in zip(parts, vocabs, strict=True):
                z = _tempered(matrix[:, vocab], temperature)
                sum_block(z, ids[rows] - vocab.start, part, torch.empty_like(z))
            sums[:, rows] = merge(parts)
        if shard is not None:
            sums = merge(shard.gather(sums))
        logp, entropy, collision, correction, log_norm = finish(sums)
        check_maxima(logits.__getitem__, sums[0].view(token_ids.shape), start)
        ctx.save_for_backward(logits, ids, log_norm, entropy)
        ctx.temperature, ctx.entropy_grad = temperature, entropy_grad
        ctx.mark_non_differentiable(collision, correction, *(() if entropy_grad else (entropy,)))
        return logp, entropy, collision, correction

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logp: Tensor, d_entropy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        logits, ids, log_norm, entropy = ctx.saved_tensors
        upstream = Upstream(log_norm, entropy, d_logp, d_entropy if ctx.entropy_grad else None)
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        out = grad.view(-1, logits.shape[-1])
        for rows, matrix in _row_blocks(logits):
            for vocab in slices(logits.shape[-1], _COLUMNS):
                z = _tempered(matrix[:, vocab], ctx.temperature)
                d_z = logit_grads(z, ids[rows] - vocab.start, upstream.of(rows), torch.empty_like(z))
                out[rows, vocab] = d_z.div_(ctx.temperature)
        return grad, None, None, None, None


def _row_blocks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the flattened rows with views of their logits.

    On the CPU, _COLUMNS columns of a block fit a core's cache; on other devices they fill the device.
    """
    size = (2**17 if logits.device.type == "cpu" else 2**24) // min(_COLUMNS, logits.shape[-1])
    start = 0
    for matrix in _matrices(logits):
        for rows in slices(len(matrix), size):
            yield slice(start + rows.start, start + rows.stop), matrix[rows]
        start += len(matrix)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Return a copy of the logits / temperature, in the computing type."""
    z = logits.to(compute_dtype(logits), copy=True)
    return z if temperature == 1 else z.div_(temperature)


def _matrices(logits: Tensor) -> list[Tensor]:
    """Return the rows as views (n, V), in order: one if the memory layout allows it, else one per leading index."""
    if logits.is_contiguous() or logits.dim() <= 2:
        return [logits.reshape(-1, logits.shape[-1])]
    return [matrix for part in logits.unbind() for matrix in _matrices(part)]
