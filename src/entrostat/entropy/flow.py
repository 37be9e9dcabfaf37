"""Entropy flow: how a step on the trained loss changes the entropy of each token's own state, to first order.

For a loss L, a step dz = -eta dL/dz on the logits z of a state with p = softmax(z) and entropy H changes the entropy by
    dH = eta <S, dL/dz> + O(eta^2),    S_x = p_x (ln p_x + H) = -dH/dz_x
and, for a loss that depends on the state only through ln pi of its sampled token, by
    dH = -eta (dL / d ln pi) T,    T the sensitivity.
With independent logits the sum over tokens is the change of the summed entropy; shared parameters mix the tokens.
Sources: arXiv 2605.11775 for T; the form for any loss is derived here. Everything is detached; shapes (...).
"""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat.entropy.polarity import polarity, sensitivity
from entrostat.objective import PolicyLoss
from entrostat.tokens import TokenStats


def entropy_flow(
    stats: TokenStats,
    advantages: Tensor,
    loss: PolicyLoss | Tensor,
    *,
    logits: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Return the flow of every token (...), in nats per unit of step on its own logits; 0 outside the mask.

    If loss is a PolicyLoss: slope A T, 0 where the token is clipped. This is the objective alone, before aggregation;
    its mean over the tokens is the flow of the step under token-mean.
    If loss is the scalar that is trained, before `backward`: -(dL / d ln pi) T. It includes the aggregation, the
    corrections and every term that is a function of ln pi, and the advantages, so the argument `advantages` is not
    read; its sum over the tokens is the flow of the step.
    If the logits (..., V) of the statistics are given too, with their temperature: <S, dL/dz>, which also includes an
    entropy bonus and an exact KL.
    Raises ValueError for a scalar that does not depend on the statistics, and for one with an entropy bonus but no
    logits.
    """
    if isinstance(loss, PolicyLoss):
        return (loss.slope * polarity(stats, advantages)).where(loss.mask, 0)
    if not (loss.requires_grad and stats.logp.requires_grad):
        raise ValueError("loss does not depend on stats.logp; give the trained scalar, before its `backward`")
    if logits is not None:
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        return (entropy_push(logits, temperature) * temperature * gradient.to(stats.entropy.dtype)).sum(-1)
    if stats.entropy.requires_grad:
        (gradient,) = torch.autograd.grad(loss, stats.entropy, retain_graph=True, allow_unused=True)
        if gradient is not None and bool(gradient.any()):
            raise ValueError("loss has an entropy bonus, whose flow needs the whole distribution; give logits")
    return flow_of_loss(loss, stats)


def flow_of_loss(loss: Tensor, stats: TokenStats, push: Tensor | None = None) -> Tensor:
    """Return -(dL / d ln pi) T of every token: the flow of all terms of a scalar loss that are functions of ln pi.

    push (...): sum_x S_x^2 of every token, by `bonus_flow`; with it -(dL / dH) push is added, the flow of an entropy
    bonus. An exact KL depends on the whole distribution and is not included. Raises ValueError if the loss does not
    depend on stats.logp.
    """
    (slope,) = torch.autograd.grad(loss, stats.logp, retain_graph=True, allow_unused=True)
    if slope is None:
        raise ValueError("loss does not depend on stats.logp; take both from the same forward pass")
    flow = (-slope * sensitivity(stats)).where(slope != 0, 0)
    if push is None or not stats.entropy.requires_grad:
        return flow
    (slope,) = torch.autograd.grad(loss, stats.entropy, retain_graph=True, allow_unused=True)
    return flow if slope is None else flow + (-slope * push).where(slope != 0, 0)


@torch.no_grad()
def entropy_push(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return S_x = p_x (ln p_x + H) over the vocabulary, (..., V): minus the entropy's gradient; 0 where p is 0."""
    logp = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
    outside = ~(logp > -torch.inf)
    p, logp = logp.exp().masked_fill(outside, 0), logp.masked_fill(outside, 0)
    return p * (logp - (p * logp).sum(-1, keepdim=True))


@torch.no_grad()
def bonus_flow(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the flow (...) of the term -H in the loss: sum_x S_x^2."""
    return torch.stack([entropy_push(row, temperature).square().sum(-1) for row in logits])


@torch.no_grad()
def kl_flow(logits: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the flow (...) of the term KL(pi || reference) in the loss: sum_x S_x p_x (ln p_x - ln q_x - KL).

    logits, reference: (B, ..., V). A token outside the policy's support adds 0; for one that only the reference
    excludes, the divergence is infinite and the flow not finite.
    """
    return torch.stack([_kl_flow(row, other, temperature) for row, other in zip(logits, reference, strict=True)])


def _kl_flow(logits: Tensor, reference: Tensor, temperature: float) -> Tensor:
    outside = logits == -torch.inf
    logp = (logits.float() / temperature).log_softmax(-1).masked_fill(outside, 0)
    gap = (logp - (reference.float() / temperature).log_softmax(-1)).masked_fill(outside, 0)
    p = logp.exp().masked_fill(outside, 0)
    return (entropy_push(logits, temperature) * p * (gap - (p * gap).sum(-1, keepdim=True))).sum(-1)


@torch.no_grad()
def flow_by_rule(stats: TokenStats, advantages: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Return the flow of every token (...) in nats per unit of logit step, by three rules; slope is 0 if it is clipped.

    exact        slope A T,  T = C - S_a (`sensitivity`)
    token_only   -slope A S_a,  S_a = p_a (ln p_a + H): without the correction C
    surprisal    slope abs(A T) with the sign of A (-ln p_a - H): the table of the regions E1-E4, right for rare tokens
                 and wrong for likely ones with 0 < S_a < C
    Source: arXiv 2602.09782, section 1; arXiv 2605.11775.
    """
    surplus = (stats.logp + stats.entropy).masked_fill(stats.logp == -torch.inf, 0)
    exact = slope * advantages * sensitivity(stats)
    token_only = -slope * advantages * stats.logp.exp() * surplus
    return {"exact": exact, "token_only": token_only, "surprisal": exact.abs() * token_only.sign()}
