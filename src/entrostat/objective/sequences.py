"""Sums over each token's sequence, for padded and for packed tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_sum(x: Tensor, sequences: Tensor | None) -> Tensor:
    """The sum of x over each token's own sequence, repeated at every token.

    sequences None: x is padded (B, T) and a row is a sequence. Otherwise both are (N,), packed, and the sequences are
    numbered from 0. Raises ValueError for packed tokens without sequence numbers.
    """
    if sequences is None:
        if x.dim() < 2:
            raise ValueError("packed tokens (N,) need `sequences`, the sequence number of each token")
        return x.sum(-1, keepdim=True).expand_as(x)
    return packed_sums(x, sequences)[sequences]


def sequence_mean(x: Tensor, mask: Tensor, sequences: Tensor | None) -> Tensor:
    """The mean of x over the masked tokens of each token's own sequence, repeated at every token; 0 if it has none."""
    count = sequence_sum(mask.to(x.dtype), sequences)
    return sequence_sum(x.where(mask, 0), sequences) / count.clamp_min(1)


def before(x: Tensor, sequences: Tensor | None) -> Tensor:
    """The sum of x >= 0 over the tokens before each token in its own sequence; packed sequences must be contiguous."""
    if sequences is None:
        sequence_sum(x, None)
        return x.cumsum(-1) - x
    earlier = x.cumsum(0) - x
    first = x.new_full((int(sequences.max()) + 1,), float("inf")).scatter_reduce(0, sequences, earlier, "amin")
    return earlier - first[sequences]


def sequence_quantile(x: Tensor, mask: Tensor, sequences: Tensor | None, level: float) -> Tensor:
    """The `level`-quantile of x over the masked tokens of each token's own sequence; 0 if it has none."""
    if sequences is None:
        rows = x.where(mask, float("nan")).nanquantile(level, dim=-1, keepdim=True)
        return rows.nan_to_num(nan=0.0).expand_as(x)
    found = torch.zeros_like(x)
    for number in range(int(sequences.max()) + 1):
        own = sequences == number
        if bool((own & mask).any()):
            found[own] = x[own & mask].quantile(level)
    return found


def sequence_count(mask: Tensor, sequences: Tensor | None) -> Tensor:
    """The number of sequences with at least one masked token."""
    tokens = mask.sum(-1) if sequences is None else packed_sums(mask.float(), sequences)
    return (tokens > 0).sum()


def packed_sums(x: Tensor, sequences: Tensor) -> Tensor:
    """The sum of x (N,) over each sequence (S,), the sequences numbered from 0."""
    return x.new_zeros(int(sequences.max()) + 1).index_add(0, sequences, x)
