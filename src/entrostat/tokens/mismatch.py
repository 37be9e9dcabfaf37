"""How far the policy is from the sampler that wrote the tokens, from the log-probabilities of those tokens alone.

With mu the sampler's distribution, p the policy's and w = p_a / mu_a at a token a drawn from mu, each of

    k1 = -ln w                unbiased, of either sign
    k3 = w - 1 - ln w         unbiased, >= 0, of lower variance while w is near 1

has the expectation KL(mu || p) = sum_x mu_x ln(mu_x / p_x) (Schulman, "Approximating KL divergence", 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sampler_kl(logp: Tensor, sampler_logp: Tensor) -> tuple[Tensor, Tensor]:
    """Return k1 and k3 (...), float64, in nats per token; sum them over a completion for nats per completion.

    logp: (...), of the sampled tokens under the policy; -inf gives +inf in both. sampler_logp: (...), finite, under the
    distribution that they were drawn from, at the same temperature. ValueError: shapes differ, or a value is NaN.
    """
    if logp.shape != sampler_logp.shape:
        raise ValueError(
            f"logp has shape {tuple(logp.shape)} and sampler_logp {tuple(sampler_logp.shape)}; allowed: one shape. "
            "Slice both to the sampled tokens"
        )
    if not sampler_logp.isfinite().all() or logp.isnan().any():
        raise ValueError("logp or sampler_logp has a NaN or sampler_logp an infinity; allowed: numbers. Mask padding")
    k1 = sampler_logp.double() - logp.double()
    return k1, torch.expm1(-k1) + k1


@torch.no_grad()
def effective_sample_size(log_weights: Tensor) -> float:
    """Return (sum W)^2 / sum W^2, between 1 and n: how many of n completions carry an importance-weighted mean.

    log_weights: (n,), ln W = sum of ln w over each completion's tokens; -inf is a weight of 0. 0 where n is 0 or every
    weight is 0. Source: Kong, 1992. ValueError: a NaN or +inf.
    """
    if log_weights.isnan().any() or (log_weights == torch.inf).any():
        raise ValueError("log_weights has a NaN or +inf; allowed: finite, or -inf for a weight of 0. Drop those rows")
    weights = log_weights.double().flatten()
    if not len(weights) or not weights.isfinite().any():
        return 0.0
    return float((2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp())
