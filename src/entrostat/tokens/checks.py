"""Checks of the statistics' arguments: an error names the argument, its value, the allowed range and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def check_floating(**tensors: Tensor | None) -> None:
    """Raise TypeError for the first tensor that is not floating point."""
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"{name} has dtype {tensor.dtype}; allowed: a floating type. Call .float() on it")


def check_rows(name: str, tensor: Tensor, token_ids: Tensor) -> None:
    """Raise ValueError unless the named tensor has the leading shape of the ids and a last axis that is not empty."""
    if tensor.dim() < 1 or tensor.shape[:-1] != token_ids.shape or tensor.shape[-1] < 1:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} and token_ids {tuple(token_ids.shape)}; "
            "allowed: (..., size >= 1) and (...). Shift or slice one to match the other"
        )


def check_positive(**numbers: float | None) -> None:
    """Raise ValueError for the first number that is not positive and finite; None passes."""
    for name, value in numbers.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}; allowed: a finite number > 0. Pass one, or leave it at its default")


def check_ids(token_ids: Tensor, vocabulary: int) -> None:
    """Raise unless the ids are integers in [0, vocabulary)."""
    if token_ids.is_floating_point() or token_ids.is_complex() or token_ids.dtype == torch.bool:
        raise TypeError(f"token_ids has dtype {token_ids.dtype}; allowed: an integer type. Call .long() on it")
    outside = (token_ids < 0) | (token_ids >= vocabulary)
    if outside.any():
        at = first(outside)
        raise ValueError(
            f"token_ids{list(at)} is {int(token_ids[at])}; allowed: 0 to {vocabulary - 1}. "
            "Replace padding ids by any valid id and mask those positions"
        )


def check_maxima(logits_of: Callable[[tuple[int, ...]], Tensor], maxima: Tensor, start: int) -> None:
    """Raise for the first NaN or +inf logit, which shows in its row's maximum.

    logits_of(position) returns a row of logits; with a sharded vocabulary, this rank's part of it, which begins at
    token id start. A rank that does not hold the bad logit names the row alone.
    """
    bad = ~(maxima < math.inf)
    if bad.any():
        row = first(bad)
        wrong = ~(logits_of(row) < math.inf)
        at = [*row, start + first(wrong)[0]] if wrong.any() else [*row]
        raise ValueError(
            f"logits{at} is {float(maxima[row])}; allowed: finite, or -inf outside the support. "
            "Look for an overflow or a NaN in the layers below"
        )


def first(mask: Tensor) -> tuple[int, ...]:
    """Return the position of the first True."""
    return tuple(int(i) for i in mask.nonzero()[0])
