"""Tokens that another policy sampled: a correction as a part of the controller, and the metrics of the mismatch.

    sums = MismatchSums.zero()
    sums = sums + mismatch_sums(old_logp, sampler_logp, mask)      per micro-batch; ranks all-reduce the two tensors
    record["mismatch"] = sums.metrics()

mu sampled the tokens, pi_old is the trainer's own policy at that time or later, and w = pi_old/mu.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Part, TokenBatch
from entrostat.objective import Correction, SampledTokens
from entrostat.objective.sequences import packed_sums
from entrostat.tokens import sampler_kl

RATIO_BAND = (0.5, 2.0)
MOST_LOG_WEIGHT = 300.0  # nats, so that the square of the weight fits into float64


@dataclass
class Corrected(Part):
    """A correction as a part: its factors multiply the advantages, as every part's weights do.

    Raises ValueError in `weights` where the trainer gives no log-probabilities of the sampler.
    """

    correction: Correction

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        if batch.sampler_logp is None:
            raise ValueError(
                f"correction {type(self.correction).__name__} needs the log-probabilities of the policy that sampled, "
                "and this trainer gives none (sampler_logp); let it record them, or remove the correction"
            )
        return self.correction(
            SampledTokens(
                batch.stats.logp.detach(),
                batch.old_logp,
                batch.sampler_logp,
                batch.advantages,
                batch.mask,
                batch.stats.entropy.detach(),
                batch.sequences,
            )
        )


class _Token(IntEnum):
    TOKENS = 0
    K1 = 1
    K3 = 2
    SQUARE = 3
    DISTANCE = 4
    OUTSIDE = 5
    MASKED = 6
    SEQUENCES = 7
    WEIGHT = 8
    WEIGHT_SQUARE = 9
    PERPLEXITY = 10


@dataclass(frozen=True, slots=True)
class MismatchSums:
    """Sums over tokens and sequences, float64: `totals` (11,), reduced by SUM; `lowest` (1,), by MIN."""

    totals: Tensor
    lowest: Tensor

    @classmethod
    def zero(cls) -> MismatchSums:
        """The sums of no token."""
        return cls(torch.zeros(len(_Token), dtype=torch.float64), torch.zeros(1, dtype=torch.float64))

    def __add__(self, other: MismatchSums) -> MismatchSums:
        device = other.totals.device
        return MismatchSums(self.totals.to(device) + other.totals, torch.minimum(self.lowest.to(device), other.lowest))

    @property
    def kl(self) -> float | None:
        """The k3 estimate of KL(mu, pi_old), nats per token; None if no token was counted."""
        return self._mean(_Token.K3) if self.totals[_Token.TOKENS] else None

    def metrics(self) -> dict[str, float]:
        """The record of a step; {} if no token was counted.

        k1, k3            estimates of KL(mu, pi_old), nats per token: means of -ln w and of w - 1 - ln w
        chi2              mean of w^2, minus 1
        distance          mean of abs(ln w), nats
        largest           largest abs(ln w), nats
        outside           share of tokens with w outside [.5, 2]
        masked            share of tokens whose factor of the correction is 0
        sample_size       effective sample size (sum W)^2 / sum W^2 of the sequences' weights W = prod w, as a share of
                          the sequences
        perplexity_ratio  mean over sequences of the perplexity under pi_old by that under mu, exp(mean of -ln w)
        Where weights are exponentiated, ln w and ln W are limited to +-300, so every number is finite.
        """
        if not self.totals[_Token.TOKENS]:
            return {}
        weight, square, sequences = (
            float(self.totals[column]) for column in (_Token.WEIGHT, _Token.WEIGHT_SQUARE, _Token.SEQUENCES)
        )
        return {
            "k1": self._mean(_Token.K1),
            "k3": self._mean(_Token.K3),
            "chi2": self._mean(_Token.SQUARE) - 1,
            "distance": self._mean(_Token.DISTANCE),
            "largest": -float(self.lowest),
            "outside": self._mean(_Token.OUTSIDE),
            "masked": self._mean(_Token.MASKED),
            "sample_size": weight**2 / square / sequences,
            "perplexity_ratio": float(self.totals[_Token.PERPLEXITY]) / sequences,
        }

    def _mean(self, column: _Token) -> float:
        return float(self.totals[column] / self.totals[_Token.TOKENS])


@torch.no_grad()
def mismatch_sums(
    old_logp: Tensor,
    sampler_logp: Tensor,
    mask: Tensor,
    *,
    factors: Tensor | None = None,
    sequences: Tensor | None = None,
) -> MismatchSums:
    """The sums of one micro-batch: rows (B, T) that are whole sequences, or packed tokens (N,) with `sequences`.

    old_logp, sampler_logp: ln pi_old and ln mu, nats, finite inside the mask. factors: those of the correction.
    A mask of zeros gives zeros. Raises ValueError for shapes that differ and for values that are not finite.
    """
    mask = mask.bool()
    if not bool(mask.any()):
        return MismatchSums.zero()
    k1, _ = sampler_kl(old_logp.where(mask, 0), sampler_logp.where(mask, 0))
    _, k3 = sampler_kl(-_limited(k1), torch.zeros_like(k1))
    ratio = _limited(-k1).exp()
    low, high = RATIO_BAND
    removed = torch.zeros_like(mask) if factors is None else factors == 0
    per_token = (mask, k1, k3, ratio.square(), k1.abs(), (ratio < low) | (ratio > high), removed)
    log_weight, length = (
        x.double().sum(-1) if sequences is None else packed_sums(x.double(), sequences) for x in (-k1, mask)
    )
    log_weight, length = log_weight[length > 0], length[length > 0]
    weight = _limited(log_weight).exp()
    per_sequence = (torch.ones_like(weight), weight, weight.square(), _limited(-log_weight / length).exp())
    totals = [x[mask].double().sum() for x in per_token] + [x.sum() for x in per_sequence]
    return MismatchSums(torch.stack(totals), -k1.abs().max()[None])


def _limited(log_weight: Tensor) -> Tensor:
    return log_weight.clamp(-MOST_LOG_WEIGHT, MOST_LOG_WEIGHT)
