"""Entropy flow: what a step on the loss that is trained does to the entropy of each token's own state, to first order.

For a loss L, a step dz = -eta dL/dz on the logits z of a state with p = softmax(z) and entropy H changes the entropy by
    dH = eta <S, dL/dz> + O(eta^2),    S_x = p_x (ln p_x + H) = -dH/dz_x
and a loss that sees the state through ln pi of its sampled token alone, by
    dH = -eta (dL / d ln pi) T,    T the sensitivity.
With independent logits the sum over tokens is the change of the summed entropy; parameters that tokens share mix them.
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
    """The flow of every token (...), in nats per unit of step on its own logits; 0 outside the mask.

    loss a PolicyLoss: slope A T, 0 where the token is clipped away. That is the objective alone, before aggregation;
    its mean over the tokens is the flow of the step under token-mean.
    loss a scalar, as it is trained and before `backward`: -(dL / d ln pi) T, with the aggregation, corrections and
    every term that is a function of ln pi in it (and the advantages, so that those given are not read); its sum over
    the tokens is the flow of the step. With logits (..., V), those of the statistics, at their temperature:
    <S, dL/dz>, with an entropy bonus and an exact KL in it, too.
    Raises ValueError for a scalar that does not depend on the statistics, and for one that pays for entropy where no
    logits are given.
    """
    if isinstance(loss, PolicyLoss):
        return (loss.slope * polarity(stats, advantages)).where(loss.mask, 0)
    if not (loss.requires_grad and stats.logp.requires_grad):
        raise ValueError("loss does not depend on stats.logp; give the scalar that is trained, before its `backward`")
    if logits is not None:
        (pull,) = torch.autograd.grad(loss, logits, retain_graph=True)
        return (entropy_push(logits, temperature) * temperature * pull.to(stats.entropy.dtype)).sum(-1)
    if stats.entropy.requires_grad:
        (paid,) = torch.autograd.grad(loss, stats.entropy, retain_graph=True, allow_unused=True)
        if paid is not None and bool(paid.any()):
            raise ValueError("loss pays for entropy, whose flow needs the whole distribution; give logits")
    return flow_of_loss(loss, stats)


def flow_of_loss(loss: Tensor, stats: TokenStats) -> Tensor:
    """-(dL / d ln pi) T of every token: the flow of all that a scalar loss has as a function of ln pi.

    An entropy bonus and an exact KL, which see the whole distribution, are not in it. ValueError: the loss does not
    depend on stats.logp.
    """
    (slope,) = torch.autograd.grad(loss, stats.logp, retain_graph=True, allow_unused=True)
    if slope is None:
        raise ValueError("loss does not depend on stats.logp; take both from the same forward pass")
    return (-slope * sensitivity(stats)).where(slope != 0, 0)


@torch.no_grad()
def entropy_push(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """S_x = p_x (ln p_x + H) of the whole vocabulary, (..., V): minus the gradient of the entropy; 0 where p is 0."""
    logp = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
    outside = ~(logp > -torch.inf)
    p, logp = logp.exp().masked_fill(outside, 0), logp.masked_fill(outside, 0)
    return p * (logp - (p * logp).sum(-1, keepdim=True))


@torch.no_grad()
def bonus_flow(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The flow (...) of the term -H in the loss: sum_x S_x^2."""
    return torch.stack([entropy_push(row, temperature).square().sum(-1) for row in logits])


@torch.no_grad()
def kl_flow(logits: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
    """The flow (...) of the term KL(pi || reference) in the loss: sum_x S_x p_x (ln p_x - ln q_x - KL).

    logits, reference: (B, ..., V). A token outside the policy's support adds 0; one outside the reference's alone has
    an infinite divergence, and a flow that is not finite.
    """
    return torch.stack([_kl_flow(row, other, temperature) for row, other in zip(logits, reference, strict=True)])


def _kl_flow(logits: Tensor, reference: Tensor, temperature: float) -> Tensor:
    outside = logits == -torch.inf
    logp = (logits.float() / temperature).log_softmax(-1).masked_fill(outside, 0)
    gap = (logp - (reference.float() / temperature).log_softmax(-1)).masked_fill(outside, 0)
    p = logp.exp().masked_fill(outside, 0)
    return (entropy_push(logits, temperature) * p * (gap - (p * gap).sum(-1, keepdim=True))).sum(-1)
