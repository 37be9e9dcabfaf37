"""Sums over each token's sequence, for padded and for packed tokens."""

from __future__ import annotations

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


def sequence_count(mask: Tensor, sequences: Tensor | None) -> Tensor:
    """The number of sequences with at least one masked token."""
    tokens = mask.sum(-1) if sequences is None else packed_sums(mask.float(), sequences)
    return (tokens > 0).sum()


def packed_sums(x: Tensor, sequences: Tensor) -> Tensor:
    """The sum of x (N,) over each sequence (S,), the sequences numbered from 0."""
    return x.new_zeros(int(sequences.max()) + 1).index_add(0, sequences, x)
