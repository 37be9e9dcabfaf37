"""Four numbers for each token of a policy: log-probability, entropy, collision probability and correction.

With logits z (V,), p = softmax(z / temperature) and the sampled token a, in natural logarithms:

    logp        ln p_a
    entropy     H = -sum_x p_x ln p_x                       (nats)
    collision   sum_x p_x^2
    correction  C = sum_x p_x^2 (ln p_x + H) = Cov_{x~p}(p_x, ln p_x)

A policy-gradient step on the logits with advantage A and ratio r moves the entropy by r A (C - p_a (ln p_a + H)) to
first order (arXiv 2602.09782 and 2605.11775), so these four are all that a diagnosis needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class TokenStats:
    """The four statistics, each of the shape of the token ids; float32, or float64 where the input was float64.

    A row whose logits are all -inf has no distribution: its logp is -inf and its other statistics are 0.
    """

    logp: Tensor
    entropy: Tensor
    collision: Tensor
    correction: Tensor


def token_stats(logits: Tensor, token_ids: Tensor, temperature: float = 1.0, entropy_grad: bool = False) -> TokenStats:
    """Return the statistics of p = softmax(logits / temperature) at the sampled tokens.

    Args:
        logits: (..., V), any floating type; -inf marks a token outside the support.
        token_ids: (...), integers in [0, V).
        temperature: positive; p is the tempered distribution.
        entropy_grad: let gradients flow through the entropy, too.

    Gradients flow through logp, through entropy where asked, never through collision and correction.

    Raises:
        ValueError: a shape, an id or the temperature is out of its range, or a logit is NaN or +inf.
        TypeError: the logits are not floating point or the ids not integers.
    """
    check_inputs(logits, token_ids, temperature)
    rows, ids = logits.reshape(-1, logits.shape[-1]), token_ids.reshape(-1)
    stats = _LogitStats.apply(rows, ids, temperature, entropy_grad)  # type: ignore[no-untyped-call]
    return TokenStats(*(s.reshape(token_ids.shape) for s in stats))


def check_inputs(logits: Tensor, token_ids: Tensor, temperature: float) -> None:
    """Raise an error that names the argument, its value and its allowed range, for anything but NaN and +inf logits."""
    if not logits.is_floating_point():
        raise TypeError(f"logits has dtype {logits.dtype}; allowed: a floating type. Convert it with logits.float()")
    if token_ids.is_floating_point() or token_ids.is_complex() or token_ids.dtype == torch.bool:
        raise TypeError(f"token_ids has dtype {token_ids.dtype}; allowed: an integer type. Call .long() on it")
    if logits.shape[:-1] != token_ids.shape or logits.dim() < 1 or logits.shape[-1] < 1:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and token_ids {tuple(token_ids.shape)}; "
            "allowed: logits (..., V) with V >= 1 and token_ids (...). Shift or slice one to match the other"
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature is {temperature}; allowed: a finite number > 0. Score greedy text at 1.0")
    vocab = logits.shape[-1]
    if ((token_ids < 0) | (token_ids >= vocab)).any():
        at = ((token_ids < 0) | (token_ids >= vocab)).nonzero()[0].tolist()
        raise ValueError(
            f"token_ids{at} is {int(token_ids[tuple(at)])}; allowed: 0 to {vocab - 1}. "
            "Replace padding ids by any valid id and mask those positions"
        )


class _LogitStats(torch.autograd.Function):
    """Statistics of rows (N, V) in blocks of rows, so that no second copy of the logits is held."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float, entropy_grad: bool) -> tuple[Tensor, ...]:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        out = logits.new_empty((6, len(logits)), dtype=dtype)
        for block in _row_blocks(logits):
            out[:, block] = _block_stats(logits[block].to(dtype), ids[block], temperature)
        logp, entropy, collision, correction, peak, log_norm = (row.clone() for row in out)
        _check_peaks(logits, peak)
        ctx.save_for_backward(logits, ids, logp, entropy, peak, log_norm)
        ctx.temperature, ctx.entropy_grad = temperature, entropy_grad
        ctx.mark_non_differentiable(collision, correction, *(() if entropy_grad else (entropy,)))
        return logp, entropy, collision, correction

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logp: Tensor, d_entropy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        logits, ids, logp, entropy, peak, log_norm = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for block in _row_blocks(logits):
            gap = _gap(logits[block].to(logp.dtype), peak[block], ctx.temperature)
            surprise = gap.sub_(log_norm[block, None])
            p = surprise.exp()
            d_z = -d_logp[block, None] * p
            d_z.scatter_(1, ids[block, None], (-torch.expm1(logp[block]) * d_logp[block])[:, None])
            if ctx.entropy_grad:
                d_z -= d_entropy[block, None] * p * surprise.add_(entropy[block, None])
            grad[block] = d_z.div_(ctx.temperature)
        return grad, None, None, None


def _row_blocks(logits: Tensor) -> list[slice]:
    """Cut the rows so that a block stays in a core's cache on the CPU and fills the device elsewhere."""
    elements = 2**17 if logits.device.type == "cpu" else 2**26
    rows = max(1, elements // logits.shape[1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def _gap(z: Tensor, peak: Tensor, temperature: float) -> Tensor:
    """(z - peak) / temperature in [-1e4, 0]: its exp() is unchanged, and 0 times it is 0 where z is -inf."""
    floor = peak.masked_fill(peak == -math.inf, 0)
    return z.sub(floor[:, None]).div_(temperature).clamp_(min=-1e4)


def _block_stats(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Return logp, entropy, collision, correction, peak and ln(norm) of the rows of z (n, V), as (6, n).

    With g = (z - peak) / temperature and e = exp(g), norm s = sum e = 1 + rest: the peak's own 1 is kept apart, so that
    ln s = log1p(rest) is exact to the last digit for peaked rows. The mean of g is ln s - H =: mu, and

        C = sum e (e - exp(mu)) (g - mu) / s^2

    because sum p (ln p + H) = 0. No term of it is negative, so nothing cancels, whatever the distribution.
    """
    peak, top = z.max(1)
    empty = peak == -math.inf
    sampled = (z.gather(1, ids[:, None])[:, 0] - peak.masked_fill(empty, 0)) / temperature
    gap = _gap(z, peak, temperature)
    weight = gap.exp().scatter_(1, top[:, None], 0)
    rest = weight.sum(1)
    norm, log_norm = 1 + rest, rest.log1p()
    mu = torch.linalg.vecdot(weight, gap) / norm
    collision = (1 + weight.square().sum(1)) / norm.square()
    spread = (weight - mu.exp()[:, None]).mul_(weight)
    correction = (mu * torch.expm1(mu) + torch.linalg.vecdot(spread, gap.sub_(mu[:, None]))) / norm.square()
    values = torch.stack((sampled - log_norm, log_norm - mu, collision, correction.clamp_(min=0)))
    values[1:, empty] = 0
    return torch.cat((values, peak[None], log_norm[None]))


def _check_peaks(logits: Tensor, peak: Tensor) -> None:
    """Raise for the first NaN or +inf logit; either shows in its row's maximum."""
    bad = ~(peak < math.inf)
    if bad.any():
        row = int(bad.nonzero()[0])
        column = int((~(logits[row] < math.inf)).nonzero()[0])
        raise ValueError(
            f"logits[{row}, {column}] (rows counted over the leading shape) is {float(logits[row, column])}; "
            "allowed: finite, or -inf outside the support. Look for an overflow in the layers below"
        )
