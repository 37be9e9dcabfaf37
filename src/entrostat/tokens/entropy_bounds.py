"""Bounds of the entropy from the k highest log-probabilities alone, which is all that most servers show.

With the top k (and the sampled token, where it is not among them) known, the other m tokens share the mass
r = 1 - sum_known p, and none of them exceeds the least of the top, b. Entropy is Schur-concave, so it is

    highest where the m tokens are alike              sum_known p s + r ln(m / r)
    lowest where as many as can be stand at b         sum_known p s + n b (-ln b) + e (-ln e),  n = floor(r / b)

with s = -ln p and e = r - n b. Both are attained (the upper one as r <= m b), so no tighter bounds exist.
"""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat.tokens.checks import check_floating, first

FAR = 1e4  # nats; exp(-FAR) is 0, and 0 times FAR is 0
ROUNDING = 1e-2  # of mass, that log-probabilities as servers print them may be off by


@torch.no_grad()
def topk_entropy_bounds(topk_logprobs: Tensor, token_logprobs: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest entropy (...), float64, in nats, that the top k allow.

    Args:
        topk_logprobs: (..., k), the k >= 1 highest log-probabilities, in any order, each token once.
        token_logprobs: (...), of the sampled token; below the least of the top k it counts as one more known token.
        vocabulary: V, how many tokens there are in all; more than there are widens the upper bound only.

    Exact for exact log-probabilities; those rounded to d nats move the bounds by about d (H + ln V).

    Raises:
        ValueError: shapes differ, V < k, a value is NaN or above 0, the top k sum to more than 1, or the other tokens,
            none of them above the least of the top k, cannot hold the rest.
        TypeError: an argument is not floating point.
    """
    check_floating(topk_logprobs=topk_logprobs, token_logprobs=token_logprobs)
    _check(topk_logprobs, token_logprobs, vocabulary)
    top, sampled = topk_logprobs.double().neg().clamp(0, FAR), token_logprobs.double().neg().clamp(0, FAR)
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


def _check(topk: Tensor, token: Tensor, vocabulary: int) -> None:
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
    for name, tensor in (("topk_logprobs", topk), ("token_logprobs", token)):
        wrong = ~(tensor <= 1e-3)
        if wrong.any():
            at = first(wrong)
            raise ValueError(f"{name}{list(at)} is {float(tensor[at])}; allowed: <= 0. Pass natural log-probabilities")
    mass = topk.double().exp().sum(-1)
    if (mass > 1 + ROUNDING).any():
        at = first(mass > 1 + ROUNDING)
        raise ValueError(
            f"topk_logprobs{list(at)} has mass {float(mass[at]):.4g}; allowed: at most 1. Pass each token once"
        )


def _check_rest(mass: Tensor, most: Tensor, vocabulary: int) -> None:
    wrong = mass > most + ROUNDING
    if wrong.any():
        at = first(wrong)
        raise ValueError(
            f"topk_logprobs{list(at)} leaves a mass of {float(mass[at]):.4g}; allowed: at most {float(most[at]):.4g}, "
            f"as no other token of {vocabulary} exceeds the least of them. Pass the k highest, without gaps"
        )
