"""Terms that are added to the per-token loss before it is aggregated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def entropy_bonus(entropy: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """-coefficient H of every token in the mask, 0 outside; the gradient flows through `entropy` (...), in nats."""
    return -coefficient * entropy.where(mask.bool(), 0)


def kl_cov_tokens(logp: Tensor, advantages: Tensor, mask: Tensor, share: float = 2e-4) -> Tensor:
    """The tokens that KL-Cov penalizes, booleans (...): the `share` of them with the largest
        c = (A - mean A) (ln pi - mean ln pi),   at least one.
    Source: arXiv 2505.22617. Raises ValueError for a share outside (0, 1] and an empty mask.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give a share of the tokens in (0, 1]")
    mask = mask.bool()
    if not bool(mask.any()):
        raise ValueError("mask: no token counts; skip this batch")
    product = covariance_terms(logp.detach(), advantages, mask)
    count = max(int(share * int(mask.sum())), 1)
    largest = product.masked_fill(~mask, float("-inf")).flatten().topk(count).indices
    return mask.new_zeros(mask.numel()).index_fill(0, largest, True).view_as(mask)


def kl_cov_penalty(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    share: float = 2e-4,
    coefficient: float = 1.0,
    *,
    chosen: Tensor | None = None,
) -> Tensor:
    """KL-Cov's term: coefficient abs(ln pi - ln pi_old) on the `kl_cov_tokens`, 0 on the others.

    chosen: those tokens, if they were chosen from more tokens than are given here. The term belongs to the objective
    "reinforce", r A without a clip, and is inert on-policy. All tensors (...); the gradient flows through `logp`.
    Source: arXiv 2505.22617; PRIME-RL/Entropy-Mechanism-of-RL, verl/trainer/ppo/core_algos.py,
    compute_policy_loss_kl_cov, a share of 2e-3 at 7B and 2e-4 at 32B. Departs: none.
    Raises ValueError for a share outside (0, 1] and an empty mask.
    """
    mask = mask.bool()
    if chosen is None:
        chosen = kl_cov_tokens(logp, advantages, mask, share)
    moved = logp.where(mask, 0) - old_logp.where(mask, 0)
    return coefficient * moved.abs().where(chosen, 0)


def kl_to_reference(logits: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
    """Exact KL(pi || pi_ref) of each position's distribution, in nats (...), over the whole vocabulary:

        sum_v p_v (ln p_v - ln q_v),    p = softmax(logits / temperature), q = softmax(reference / temperature)

    logits, reference: (..., V); the gradient flows through `logits`. A token of logit -inf or of the dtype's lowest
    number (a padded vocabulary, a banned token) has p = 0 and adds 0; if only the reference has -inf, the divergence is
    infinite; a row of -inf alone has no distribution and counts as 0. It is exact, unlike Schulman's k3 estimate
    r - 1 - ln r with r = q_a / p_a of the sampled token a: used as a loss, k3 has the gradient of KL(pi_ref || pi) and
    grows without bound where p_a is small, which is where a policy runs away. The cost is the reference's logits.
    Source: Jaques et al., arXiv 1611.02796, section 3 (penalty); Schulman, "Approximating KL divergence" (k3).
    """
    logp = (logits.float() / temperature).log_softmax(-1)
    logq = (reference.detach().float() / temperature).log_softmax(-1)
    outside = logits.detach() <= torch.finfo(logits.dtype).min
    if not bool(outside.any()):
        return (logp.exp() * (logp - logq)).sum(-1)
    empty = outside.all(-1, keepdim=True)
    logp = (logits.float() / temperature).masked_fill(empty, 0).log_softmax(-1).masked_fill(outside, 0)
    return (logp.exp() * (logp - logq.masked_fill(outside, 0))).masked_fill(outside, 0).sum(-1)


def kl_estimate(logp: Tensor, reference_logp: Tensor, estimate: Literal["k1", "k2", "k3"] = "k3") -> Tensor:
    """Schulman's estimate of KL(pi || pi_ref) from the sampled tokens, nats (...); the gradient flows through `logp`.

        d = ln pi - ln pi_ref;    k1: d    k2: d^2 / 2    k3: exp(-d) - 1 + d
    For tokens drawn from pi the means of k1 and k3 are the KL. As a loss, k1 has the gradient 0 on average, k2 that of
    KL(pi || pi_ref), k3 that of KL(pi_ref || pi) to first order. Source: Schulman, "Approximating KL divergence"; verl,
    kl_penalty. Departs: verl limits d to 20 and k3 to 10. Raises ValueError for another estimate.
    """
    moved = logp - reference_logp.detach()
    if estimate == "k1":
        return moved
    if estimate == "k2":
        return moved.square() / 2
    if estimate == "k3":
        return torch.expm1(-moved) + moved
    raise ValueError(f"estimate is {estimate!r}; give 'k1', 'k2' or 'k3'")


def overlong_shaping(lengths: Tensor, longest: int, buffer: int, penalty: float = 1.0) -> Tensor:
    """What DAPO adds to the rewards of long completions, <= 0, for each of `lengths` (B,):

        -penalty clip((length - (longest - buffer)) / buffer, 0, 1),    0 without a buffer
    Source: arXiv 2503.14476, section 3.4, equation 13. Departs: none, as no completion is longer than `longest`.
    """
    if buffer == 0:
        return torch.zeros(lengths.shape)
    return -penalty * ((lengths - (longest - buffer)) / buffer).clamp(0, 1)


def adapted_coefficient(
    coefficient: float, kl: float, target: float, gain: float = 0.1, least: float = 1e-4, most: float = 10.0
) -> float:
    """The next coefficient of a KL penalty that keeps the mean KL at `target`, both in nats per token.

        e = clip((KL - target) / target, -.2, .2),    coefficient <- clip(coefficient (1 + gain e), least, most)

    Source: Ziegler et al., arXiv 1909.08593, section 2.2 (gain .1). ValueError: target <= 0.
    """
    if not target > 0:
        raise ValueError(f"target is {target}; give a KL above 0, in nats per token")
    error = min(max((kl - target) / target, -0.2), 0.2)
    return min(max(coefficient * (1 + gain * error), least), most)


def ewc_penalty(parameters: Sequence[Tensor], anchors: Sequence[Tensor], fisher: Sequence[Tensor]) -> Tensor:
    """Elastic weight consolidation, a scalar: 1/2 sum_i F_i (theta_i - theta*_i)^2.

    parameters theta, anchors theta* and fisher F: tensors of equal shapes. With F the Fisher information of the
    completion's log-probability divided by its mean length, this is the second-order expansion at theta* of the KL per
    token, so its coefficient is comparable to a KL penalty's. Source: Kirkpatrick et al., arXiv 1612.00796, eq. 3.
    """
    terms = [
        (weight * (own - anchor).square()).sum()
        for own, anchor, weight in zip(parameters, anchors, fisher, strict=True)
    ]
    return 0.5 * torch.stack(terms).sum()


def covariance_terms(logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """(A - mean A) (ln pi - mean ln pi) of every token, its term of the covariance; means over the masked tokens."""
    advantages = advantages.expand_as(logp)
    return (advantages - advantages[mask].mean()) * (logp - logp[mask].mean())
