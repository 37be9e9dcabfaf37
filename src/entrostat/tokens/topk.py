"""Statistics from the k highest log-probabilities, which is all that most servers show.

With the entropy known as well, the four statistics are estimated, with error bounds. The terms of the top tokens are
exact. Of the others, the tail, three things are known: its mass r = 1 - sum_top p, its mean surprisal
L = (H + sum_top p ln p) / r, and that no token in it is likelier than the rarest top token, b. With s = -ln p,
f(s) = e^-s (H - s) and E over the tail, s >= -ln b and E[s] = L,

    tail of sum p^2  = r E[e^-s]   lies in [r e^-L, r b]
    tail of C        = r E[f(s)]   lies in [r f(min(L, H + 1)), r max(f(-ln b), 0)]

because e^-s is convex, and f is convex up to s = H + 2 with its minimum at H + 1: its tangent at any L <= H + 1 lies
below it everywhere. The estimate assumes s = L for the whole tail.

Without the entropy, the top k bound it. With the top k (and the sampled token, where it is not among them) known, the
other m tokens share the mass r = 1 - sum_known p, and none of them exceeds the least of the top, b. Entropy is
Schur-concave, so it is

    highest where the m tokens are alike              sum_known p s + r ln(m / r)
    lowest where as many as possible equal b          sum_known p s + n b (-ln b) + e (-ln e),  n = floor(r / b)

with s = -ln p and e = r - n b. Both are attained (the upper one as r <= m b), so no tighter bounds exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from entrostat.tokens.checks import check_floating, first
from entrostat.tokens.partial import FAR
from entrostat.tokens.stats import TokenStats

ROUNDING = 1e-2  # error of the mass that rounded log-probabilities may have


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
    _check_logprobs(topk_logprobs, token_logprobs)
    wrong = ~((entropy >= -1e-3) & entropy.isfinite())
    if wrong.any():
        at = first(wrong)
        raise ValueError(f"entropy{list(at)} is {float(entropy[at])}; allowed: finite, >= 0. Pass it in nats")


@torch.no_grad()
def topk_entropy_bounds(topk_logprobs: Tensor, token_logprobs: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest entropy (...), float64, in nats, that the top k allow.

    Args:
        topk_logprobs: (..., k), the k >= 1 highest log-probabilities, in any order, each token once.
        token_logprobs: (...), of the sampled token; below the least of the top k it counts as one more known token.
        vocabulary: V, the number of tokens; too large a number widens the upper bound only.

    Exact for exact log-probabilities; those rounded to d nats move the bounds by about d (H + ln V).

    Raises:
        ValueError: shapes differ, V < k, a value is NaN or above 0, the top k sum to more than 1, or the other tokens,
            none of them above the least of the top k, cannot hold the rest.
        TypeError: an argument is not floating point.
    """
    check_floating(topk_logprobs=topk_logprobs, token_logprobs=token_logprobs)
    _check_bounded(topk_logprobs, token_logprobs, vocabulary)
    top, sampled = topk_logprobs.double().neg().clamp(0, -FAR), token_logprobs.double().neg().clamp(0, -FAR)
    least = top.amax(-1)
    outside = (sampled > least).double()
    own = outside * torch.exp(-sampled)
    known = (top.exp().reciprocal() * top).sum(-1) + own * sampled
    mass = (1 - top.neg().exp().sum(-1) - own).clamp(min=0)
    others = (vocabulary - topk_logprobs.shape[-1] - outside).clamp(min=0)
    bound = torch.exp(-least)
    _check_rest(mass, others * bound, vocabulary)
    mass = torch.where(others > 0, mass, 0.0)
    high = known + torch.special.entr(mass) + torch.xlogy(mass, others.clamp(min=1))
    full = torch.where(bound > 0, (mass / bound).floor(), 0.0)
    low = known + full * bound * least + torch.special.entr((mass - full * bound).clamp(min=0))
    return torch.minimum(low, high), high


def _check_bounded(topk: Tensor, token: Tensor, vocabulary: int) -> None:
    if topk.dim() < 1 or topk.shape[-1] < 1 or topk.shape[:-1] != token.shape:
        raise ValueError(
            f"topk_logprobs has shape {tuple(topk.shape)} and token_logprobs {tuple(token.shape)}; allowed: "
            "(..., k >= 1) and (...). Index or reshape them to one leading shape"
        )
    if vocabulary < topk.shape[-1]:
        raise ValueError(
            f"vocabulary is {vocabulary}; allowed: at least the {topk.shape[-1]} tokens of topk_logprobs. "
            "Pass the size of the model's vocabulary"
        )
    _check_logprobs(topk, token)


def _check_logprobs(topk: Tensor, token: Tensor) -> None:
    for name, tensor in (("topk_logprobs", topk), ("token_logprobs", token)):
        wrong = ~(tensor <= 1e-3)
        if wrong.any():
            at = first(wrong)
            raise ValueError(f"{name}{list(at)} is {float(tensor[at])}; allowed: <= 0. Pass natural log-probabilities")
    mass = topk.double().exp().sum(-1)
    if (mass > 1 + ROUNDING).any():
        at = first(mass > 1 + ROUNDING)
        raise ValueError(
            f"topk_logprobs{list(at)} has mass {float(mass[at]):.4g}; allowed: at most 1. "
            "Pass each token once, at the sampling temperature"
        )


def _check_rest(mass: Tensor, most: Tensor, vocabulary: int) -> None:
    wrong = mass > most + ROUNDING
    if wrong.any():
        at = first(wrong)
        raise ValueError(
            f"topk_logprobs{list(at)} leaves a mass of {float(mass[at]):.4g}; allowed: at most {float(most[at]):.4g}, "
            f"as no other token of {vocabulary} exceeds the least of them. Pass the k highest, without gaps"
        )
