"""Mutual information of prompts and completions: whether what a policy writes depends on what it was asked.

The entropy tells how much completions of one prompt differ. It does not tell whether they answer the prompt: a policy
that draws from one varied template whatever it is asked keeps its entropy. With the prompts x_1 ... x_P of a batch,
equally likely, and completions z drawn from p(z | x):

    H(Z | X)  = -E ln p(z | x)                                  entropy within a prompt
    H(Z)      = -E ln p_mix(z),    p_mix(z) = mean_j p(z | x_j)
    I(X; Z)   = H(Z) - H(Z | X) = E [ln p(z | x) - ln p_mix(z)]    dependence on the prompt, 0 to ln P

I falls towards 0 in a template collapse. Source: RAGEN-2, arXiv 2604.06268, and the authors' collapse_metrics.py
(mll-lab-nu/RAGEN). There Z is the reasoning without its tags; here Z is what the caller scores: the embedded engine
takes whole completions, TRL's trainer the first turn. Left out: their z-scores and their retrieval among the first k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TERMS = ("nats", "per_token", "conditional_entropy", "retrieval")


@torch.no_grad()
def information_terms(logp: Tensor, own: Tensor, lengths: Tensor) -> Tensor:
    """Return what each completion adds to the estimates (4, N), float64; the estimates are the means over N.

    logp (N, P): sum of ln p over the tokens of completion i, given prompt j, in nats; the prompts are distinct.
    own (N,): the place of the prompt that the completion was drawn for. lengths (N,): its tokens, at least 1.

    nats                 ln p(z | x) - ln p_mix(z), nats per completion; at most ln P, in expectation at least 0, though
                         the mean of a finite sample may lie below
    per_token            the same of the means over tokens, ln p(z | x) / length: the authors' `mi_estimate`. It still
                         falls where `nats` stays near ln P, as for long completions
    conditional_entropy  -ln p(z | x) / length, nats per token
    retrieval            1 where the own prompt gives the completion the largest probability, shared among equals: its
                         mean is 1 / P for completions that do not depend on the prompt, 1 where each tells its prompt
    Raises ValueError, naming it, for a shape, a place or a length out of range, and for a value that is not finite.
    """
    if logp.dim() != 2 or not logp.numel():
        raise ValueError(f"logp has the shape {tuple(logp.shape)}; give (N, P), completions by prompts, N and P >= 1")
    count, prompts = logp.shape
    for name, value in (("own", own), ("lengths", lengths)):
        if value.shape != (count,):
            raise ValueError(f"{name} has the shape {tuple(value.shape)}; give ({count},), one per completion")
    if bool(((own < 0) | (own >= prompts)).any()):
        raise ValueError(f"own has {own.tolist()}; give places of prompts, 0 to {prompts - 1}")
    if bool((lengths < 1).any()):
        raise ValueError("lengths has a completion without tokens; leave such completions out")
    if not bool(logp.isfinite().all()):
        raise ValueError(
            "logp has a value that is not finite: the completion has probability 0 under a prompt; score with the "
            "whole distribution, without top-p or top-k"
        )
    logp, lengths = logp.double(), lengths.to(logp.device).double()
    rows, own = torch.arange(count, device=logp.device), own.to(logp.device).long()
    normalised = logp / lengths.unsqueeze(1)
    matched, per_token = logp[rows, own], normalised[rows, own]
    best = logp == logp.amax(1, keepdim=True)
    return torch.stack(
        [
            matched - _mixture(logp),
            per_token - _mixture(normalised),
            -per_token,
            best[rows, own] / best.sum(1),
        ]
    )


def _mixture(logp: Tensor) -> Tensor:
    """ln mean_j exp(logp[:, j])."""
    return logp.logsumexp(1) - math.log(logp.shape[1])


def prompt_information(logp: Tensor, own: Tensor, lengths: Tensor) -> dict[str, float]:
    """Return the estimates of a batch; arguments and errors as of `information_terms`, the record as of `estimates`."""
    return estimates(information_terms(logp, own, lengths).mean(1).tolist(), logp.shape[1])


def estimates(means: Sequence[float], prompts: int) -> dict[str, float]:
    """Return the record of the mean terms: `TERMS`, `most` = ln P and `chance` = 1 / P, the retrieval by guessing."""
    return {**dict(zip(TERMS, means, strict=True)), "most": math.log(prompts), "chance": 1 / prompts}
