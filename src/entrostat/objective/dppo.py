"""DPPO: a token learns while the probability that it moves is small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.objective.clipping import ClipBand, clip_rule
from entrostat.objective.surrogates import Objective, Surrogate, Tokens, objective

Divergence = Literal["tv", "kl"]
Direction = Literal["ratio", "predicted"]
SMALL = 1e-8  # added to 1 - q and 1 - p, as in the authors' code


@clip_rule("dppo")
@dataclass(frozen=True)
class DppoClip(ClipBand):
    """DPPO's trust region as a band, for any objective: abs(pi - q) <= delta, q the sampler's probability.

    As a ratio: 1 - delta/q <= r <= 1 + delta/q, wide for rare tokens. Source: arXiv 2602.04879, Binary-TV, with the
    authors' .15. Departs: without their limit of 20 on the ratio, for which see objective `dppo`.
    Raises ValueError for a delta outside (0, 1).
    """

    anchored = True

    delta: float = 0.15

    def __post_init__(self) -> None:
        _check_delta(self.delta, "DppoClip")

    @override
    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        width = self.delta * (-old_logp).exp()
        return (1 - width).clamp_min(0), 1 + width


@objective("dppo")
@dataclass(frozen=True)
class Dppo(Objective):
    """DPPO: f = sg[min(r, cap)] ln pi where the token may move, 0 where it is far from the sampler and moves on.

    far        divergence "tv": abs(p - q) > delta;  "kl": q ln(q/p) + (1 - q) ln((1 - q)/(1 - p)) > delta
    moves on   direction "ratio": A (r - 1) > 0;  "predicted": A drift > 0, where a step on the token would raise
               KL(mu, pi); see `divergence_drift`
    q, mu: the sampler's, p = pi. Source: arXiv 2602.04879; verl, compute_policy_loss_dppo_tv and _kl, delta .15 in the
    authors' script, cap 20. Predicted: arXiv 2607.10848. Departs: the paper of the predicted form measures "far" over
    the 20 likeliest tokens; here it is that of the sampled token against all others.
    Raises ValueError for another divergence or direction, delta outside (0, 1), a cap of 1 or less, and "predicted"
    without a drift.
    """

    banded = False
    anchored = True

    divergence: Divergence = "tv"
    delta: float = 0.15
    cap: float = 20.0
    direction: Direction = "ratio"

    def __post_init__(self) -> None:
        for field, value, words in (
            ("divergence", self.divergence, Divergence),
            ("direction", self.direction, Direction),
        ):
            if value not in get_args(words):
                raise ValueError(f"Dppo.{field} is {value!r}; give {' or '.join(map(repr, get_args(words)))}")
        _check_delta(self.delta, "Dppo")
        if not self.cap > 1:
            raise ValueError(f"Dppo.cap is {self.cap}; give a ratio above 1; the published value is 20")

    @property
    @override
    def needs_drift(self) -> bool:
        return self.direction == "predicted"

    @override
    def __call__(self, tokens: Tokens) -> Surrogate:
        away = tokens.advantages * self._outwards(tokens) > 0
        removed = self._far(tokens) & away
        weight = tokens.ratio.clamp_max(self.cap).masked_fill(removed, 0)
        return Surrogate(
            weight * tokens.logp, weight, removed & (tokens.advantages < 0), removed & (tokens.advantages > 0)
        )

    def _outwards(self, tokens: Tokens) -> Tensor:
        if self.direction == "ratio":
            return tokens.log_ratio
        if tokens.drift is None:
            raise ValueError("Dppo.direction is 'predicted', which reads the drift; give `drift` (divergence_drift)")
        return tokens.drift

    def _far(self, tokens: Tokens) -> Tensor:
        p, q = tokens.logp.exp(), tokens.old_logp.exp()
        if self.divergence == "tv":
            return (p - q).abs() > self.delta
        rest = (1 - q) * ((1 - q + SMALL) / (1 - p + SMALL)).log()
        return -q * tokens.log_ratio + rest > self.delta


@torch.no_grad()
def divergence_drift(logits: Tensor, sampler_logits: Tensor, token_ids: Tensor) -> Tensor:
    """How KL(mu, pi) of each position changes when the sampled token a is reinforced, per unit of step (...):

        (p_a - mu_a) - sum_v p_v (p_v - mu_v),    the derivative along the gradient e_a - p of ln p_a

    logits, sampler_logits: (..., V), of pi and mu; token_ids: (...). The sign times that of A says whether the update
    leads away from the sampler; unlike the ratio's sign, it counts what the softmax does to all other tokens.
    Source: arXiv 2607.10848, in closed form over the whole vocabulary.
    """
    p, mu = logits.float().softmax(-1), sampler_logits.float().softmax(-1)
    gap = p - mu
    return gap.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1) - (p * gap).sum(-1)


def _check_delta(delta: float, owner: str) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"{owner}.delta is {delta}; give a change of probability in (0, 1); published: .15")
