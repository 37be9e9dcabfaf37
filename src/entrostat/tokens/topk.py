"""The four statistics from the k highest log-probabilities and the entropy alone, with error bounds.

The terms of the top tokens are exact. Of the others, the tail, three things are known: its mass r = 1 - sum_top p,
its mean surprisal L = (H + sum_top p ln p) / r, and that no token in it is likelier than the rarest top token, b. With
s = -ln p, f(s) = e^-s (H - s) and E over the tail, s >= -ln b and E[s] = L,

    tail of sum p^2  = r E[e^-s]   lies in [r e^-L, r b]
    tail of C        = r E[f(s)]   lies in [r f(min(L, H + 1)), r max(f(-ln b), 0)]

because e^-s is convex, and f is convex up to s = H + 2 with its minimum at H + 1: its tangent at any L <= H + 1 lies
below it everywhere. The estimate assumes s = L for the whole tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from entrostat.tokens.checks import check_floating, first
from entrostat.tokens.partial import FAR
from entrostat.tokens.stats import TokenStats


@dataclass(frozen=True)
class TopkTokenStats(TokenStats):
    """TokenStats whose collision and correction are estimates, within these errors of the truth (up to rounding)."""

    collision_error: Tensor
    correction_error: Tensor


def topk_token_stats(topk_logprobs: Tensor, token_logprobs: Tensor, entropy: Tensor) -> TopkTokenStats:
    """Return the statistics from the k highest log-probabilities, the sampled token's and the entropy.

    Args:
        topk_logprobs: (..., k), k >= 1, in any order; -inf fills a support of fewer than k tokens.
        token_logprobs: (...), of the sampled tokens; gradients flow through it alone.
        entropy: (...), nats, of the same distribution, at the same temperature.

    Raises:
        ValueError: shapes differ, a value is NaN, a log-probability exceeds 0, or the top k sum to more than 1.
        TypeError: an argument is not floating point.
    """
    check_floating(topk_logprobs=topk_logprobs, token_logprobs=token_logprobs, entropy=entropy)
    _check_topk(topk_logprobs, token_logprobs, entropy)
    with torch.no_grad():
        surprisal = topk_logprobs.double().neg().clamp(0, -FAR)
        nats = entropy.double()
        p = torch.exp(-surprisal)
        tail = (1 - p.sum(-1)).clamp(min=0)
        least = surprisal.amax(-1)
        mean = ((nats - (p * surprisal).sum(-1)) / tail).nan_to_num(0, posinf=-FAR, neginf=0).clamp(least, least - FAR)

        def term(s: Tensor) -> Tensor:
            return torch.exp(-s) * (nats - s)

        collision_error = tail * (torch.exp(-least) - torch.exp(-mean))
        middle, low, high = term(mean), term(torch.minimum(mean, nats + 1)), term(least).clamp(min=0)
        correction = (p.square() * (nats[..., None] - surprisal)).sum(-1) + tail * middle
        estimates = (
            p.square().sum(-1) + tail * torch.exp(-mean),
            correction.clamp(min=0),
            collision_error,
            tail * torch.maximum(middle - low, high - middle),
        )
    dtype = torch.float64 if topk_logprobs.dtype == torch.float64 else torch.float32
    return TopkTokenStats(token_logprobs.to(dtype), entropy.detach().to(dtype), *(e.to(dtype) for e in estimates))


def _check_topk(topk_logprobs: Tensor, token_logprobs: Tensor, entropy: Tensor) -> None:
    shapes = [tuple(t.shape) for t in (topk_logprobs, token_logprobs, entropy)]
    if topk_logprobs.dim() < 1 or shapes[0][-1] < 1 or not shapes[0][:-1] == shapes[1] == shapes[2]:
        raise ValueError(
            f"topk_logprobs, token_logprobs and entropy have shapes {shapes}; allowed: (..., k >= 1), (...) and (...). "
            "Index or reshape them to one leading shape"
        )
    for name, tensor in (("topk_logprobs", topk_logprobs), ("token_logprobs", token_logprobs)):
        wrong = ~(tensor <= 1e-3)
        if wrong.any():
            at = first(wrong)
            raise ValueError(f"{name}{list(at)} is {float(tensor[at])}; allowed: <= 0. Pass natural log-probabilities")
    wrong = ~((entropy >= -1e-3) & entropy.isfinite())
    if wrong.any():
        at = first(wrong)
        raise ValueError(f"entropy{list(at)} is {float(entropy[at])}; allowed: finite, >= 0. Pass it in nats")
    mass = topk_logprobs.double().exp().sum(-1)
    if (mass > 1 + 1e-2).any():
        at = first(mass > 1 + 1e-2)
        raise ValueError(
            f"topk_logprobs{list(at)} has mass {float(mass[at]):.4g}; allowed: at most 1. "
            "Pass each token once, at the sampling temperature"
        )
