"""Terms that are added to the per-token loss before it is aggregated."""

from __future__ import annotations

from torch import Tensor


def entropy_bonus(entropy: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """-coefficient H of every token in the mask, 0 outside; the gradient is that of `entropy` (...), in nats."""
    return -coefficient * entropy.where(mask.bool(), 0)


def kl_cov_penalty(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, share: float = 2e-4, coefficient: float = 1.0
) -> Tensor:
    """KL-Cov's term: coefficient abs(ln pi - ln pi_old) on the share of the tokens with the largest
        c = (A - mean A) (ln pi - mean ln pi),   at least one of them; 0 on the others.
    It belongs to the objective "reinforce", r A without a clip, and is inert on-policy. All tensors (...), the gradient
    is that of `logp`. Source: arXiv 2505.22617. Raises ValueError for a share outside (0, 1] and an empty mask.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give a share of the tokens in (0, 1]")
    mask = mask.bool()
    if not bool(mask.any()):
        raise ValueError("mask: no token counts; skip this batch")
    product = covariance_terms(logp.detach(), advantages, mask)
    count = max(int(share * int(mask.sum())), 1)
    largest = product.masked_fill(~mask, float("-inf")).flatten().topk(count).indices
    chosen = mask.new_zeros(mask.numel()).index_fill(0, largest, True).view_as(mask)
    return coefficient * (logp - old_logp).abs().where(chosen, 0)


def covariance_terms(logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """(A - mean A) (ln pi - mean ln pi) of every token, the means over the masked ones: its part of the covariance."""
    advantages = advantages.expand_as(logp)
    return (advantages - advantages[mask].mean()) * (logp - logp[mask].mean())
