"""Sums and gradients of an output layer in PyTorch: blocks of logits that live in a cache, worked on in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from entrostat.tokens.head import Head, compute_dtype, exact_products
from entrostat.tokens.partial import FIELDS, Upstream, logit_grads, merge, sum_block

PARTS_HELD = 16  # merging many parts at once costs little more than merging two


@dataclass(frozen=True)
class Gradients:
    """Where the gradients of hidden (N, D), weight (V, D) and bias (V,) go; None where none is wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def head_sums(hidden: Tensor, head: Head, ids: Tensor, budget: int) -> Tensor:
    """Return the sums (6, N) of `partial` over the head's vocabulary; ids outside it belong to another part."""
    dtype = compute_dtype(hidden, head.weight)
    rows, columns = block_shape(hidden, dtype, budget)
    block, scratch = hidden.new_empty((2, rows * columns), dtype=dtype)
    weights = hidden.new_empty((columns, hidden.shape[1]), dtype=dtype)
    parts: list[Tensor] = []
    with exact_products(hidden, head.weight):
        states = hidden.to(dtype)
        for vocab in slices(len(head.weight), columns):
            layer = head.part(vocab, weights)
            part = states.new_empty((FIELDS, len(states)))
            for tokens in slices(len(states), rows):
                z = layer.logits(states[tokens], out=shaped(block, tokens, vocab))
                sum_block(z, ids[tokens] - vocab.start, part[:, tokens], shaped(scratch, tokens, vocab))
            parts.append(part)
            if len(parts) == PARTS_HELD:
                parts = [merge(torch.stack(parts))]
    return merge(torch.stack(parts))


def head_grads(hidden: Tensor, head: Head, ids: Tensor, upstream: Upstream, grads: Gradients, budget: int) -> None:
    """Write the gradients, computing each block of logits again."""
    dtype = compute_dtype(hidden, head.weight)
    rows, columns = block_shape(hidden, dtype, budget)
    block, scratch = hidden.new_empty((2, rows * columns), dtype=dtype)
    weights, weight_grads = hidden.new_empty((2, columns, hidden.shape[1]), dtype=dtype)
    with exact_products(hidden, head.weight):
        states = hidden.to(dtype)
        d_states = torch.zeros_like(states)
        for vocab in slices(len(head.weight), columns):
            layer = head.part(vocab, weights)
            d_weight, d_bias = weight_grads[: len(layer.weight)].zero_(), states.new_zeros(len(layer.weight))
            for tokens in slices(len(states), rows):
                z = layer.logits(states[tokens], out=shaped(block, tokens, vocab))
                slope = layer.slope(z)
                d_z = logit_grads(z, ids[tokens] - vocab.start, upstream.of(tokens), shaped(scratch, tokens, vocab))
                d_y = d_z.mul_(slope)
                if grads.hidden is not None:
                    d_states[tokens].addmm_(d_y, layer.weight)
                if grads.weight is not None:
                    d_weight.addmm_(d_y.T, states[tokens])
                if grads.bias is not None:
                    d_bias += d_y.sum(0)
            if grads.weight is not None:
                grads.weight[vocab] = d_weight
            if grads.bias is not None:
                grads.bias[vocab] = d_bias
    if grads.hidden is not None:
        grads.hidden.copy_(d_states)


def block_shape(hidden: Tensor, dtype: torch.dtype, budget: int) -> tuple[int, int]:
    """Rows and columns of the largest block worth having within budget bytes.

    A column costs two vectors of the depth (weight and gradient), an element of the block two numbers. On the CPU the
    block fits a core's second-level cache; elsewhere it is large enough to fill the device.
    """
    most_rows, most_columns = (512, 512) if hidden.device.type == "cpu" else (4096, 8192)
    numbers = budget // dtype.itemsize // 2
    columns = max(1, min(most_columns, numbers // (2 * max(1, hidden.shape[1]))))
    return max(1, min(most_rows, numbers // (2 * columns))), columns


def slices(count: int, size: int) -> list[slice]:
    """Cut range(count) into slices of at most the size."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def shaped(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
    """The start of a flat buffer as a matrix of the slices' lengths."""
    n, v = rows.stop - rows.start, columns.stop - columns.start
    return buffer[: n * v].view(n, v)
