"""The per-token policy loss, and its aggregation to a scalar.

An objective (`surrogates.py`) gives two numbers per token, the value f and the slope df/d ln pi; the loss is
    per_token = -A (f + slope (ln pi - sg[ln pi])),   with exactly   d per_token / d ln pi = -A slope.
Shapes: all tensors are (...), padded (B, T) or packed (N,), the mask included; the advantage may broadcast.
Values outside the mask are never read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from entrostat.objective.clipping import ClipBand
from entrostat.objective.corrections import Correction, SampledTokens, correction_named
from entrostat.objective.sequences import sequence_count, sequence_sum
from entrostat.objective.surrogates import Aggregation, Objective, Tokens, named


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss of every token, and how the objective clipped it.

    per_token has the gradient and is 0 outside the mask. The rest is detached: ratio = pi/pi_old; slope, the ratio
    in the gradient times the correction's factor (d per_token / d ln pi = -A slope; 0 where the token is clipped or
    removed); clipped_low and clipped_high, booleans: where the lower or upper side of the band clips; mask, booleans;
    correction: the factors of the correction, None without one.
    """

    per_token: Tensor
    ratio: Tensor
    slope: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    mask: Tensor
    correction: Tensor | None = None


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    rule: ClipBand | None = None,
    objective: Objective | str = "clip",
    sequences: Tensor | None = None,
    correction: Correction | str | None = None,
    sampler_logp: Tensor | None = None,
    entropy: Tensor | None = None,
    drift: Tensor | None = None,
) -> PolicyLoss:
    """The loss of every token under an objective and a clip rule, before aggregation.

    logp, old_logp: ln pi and ln pi_old of the sampled tokens, nats, shape (...); old_logp gets no gradient.
    advantages: broadcastable to (...), such as (B, 1) for one per sequence. mask: (...), true where a token counts.
    objective: its name in recipes (published defaults) or an object. rule: the clip rule; the objective's own by
    default.
    sequences: the sequence number of each token, for packed tokens under an objective or a correction over sequences;
    padded (B, T) tokens need none. correction: its name or an object; it multiplies every token's loss and gradient by
    factors (see `corrections.py`) from sampler_logp, the ln mu (...) of the policy that sampled, and for "estr" from
    entropy (...). drift: (...), the change of KL(mu, pi) by the token's update, for `dppo` with a predicted direction
    (`divergence_drift`). Half precision is computed in float32.
    Raises ValueError for shapes that do not match, an empty mask, a number inside the mask that is not finite, and a
    correction without sampler_logp or the reverse.
    """
    chosen = named(objective) if isinstance(objective, str) else objective
    tokens = _tokens(logp.detach(), old_logp, advantages, mask, rule or chosen.rule, sequences)
    surrogate = chosen(tokens if drift is None else replace(tokens, drift=drift.detach()))
    moving = logp.to(tokens.logp.dtype).where(tokens.mask, 0)
    factors = _factors(tokens, correction, sampler_logp, entropy)
    value, slope = surrogate.value, surrogate.slope
    if factors is not None:
        value, slope = factors * value, factors * slope
    per_token = -tokens.advantages * (value + slope * (moving - tokens.logp))
    return PolicyLoss(
        per_token,
        tokens.ratio,
        slope,
        surrogate.clipped_low & tokens.mask,
        surrogate.clipped_high & tokens.mask,
        tokens.mask,
        factors,
    )


def _factors(
    tokens: Tokens, correction: Correction | str | None, sampler_logp: Tensor | None, entropy: Tensor | None
) -> Tensor | None:
    """The factors of a correction, 1 outside the mask; None without one."""
    if (correction is None) != (sampler_logp is None):
        raise ValueError(
            "correction and sampler_logp belong together: give ln mu of the tokens with a correction, or neither"
        )
    if correction is None or sampler_logp is None:
        return None
    chosen = correction_named(correction) if isinstance(correction, str) else correction
    known = None if entropy is None else entropy.detach()
    sampled = SampledTokens(
        tokens.logp, tokens.old_logp, sampler_logp.detach(), tokens.advantages, tokens.mask, known, tokens.sequences
    )
    factors = chosen(sampled).where(tokens.mask, 1)
    _check_finite(correction=factors)
    return factors


def settled(
    objective: Objective,
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    rule: ClipBand | None = None,
) -> tuple[Objective, ClipBand]:
    """The objective and rule for each piece of a batch, fixed from all its tokens; arguments as in `policy_loss`.

    With them, an objective that compares tokens, such as BAPO, has the same loss however the batch is split.
    """
    tokens = _tokens(logp.detach(), old_logp, advantages, mask, rule or objective.rule, None)
    return objective.settled(tokens)


def token_weights(
    mask: Tensor,
    mode: Aggregation = "token-mean",
    *,
    denominator: float | None = None,
    tokens: float | None = None,
    sequences: Tensor | None = None,
) -> Tensor:
    """The weight of each token under `aggregate`, relative to token-mean: N d loss / d per_token (...).

    1 under token-mean, N/(sequences x length) under sequence-mean, N/sequences under sequence-sum, 0 outside the mask.
    tokens: N, that of the batch if
    `denominator` counts the whole batch; by default, that of the mask. Raises ValueError as `aggregate` does.
    """
    mask = _checked_mask(mask, mask, mask)
    unit = torch.ones(mask.shape, dtype=torch.float32, device=mask.device, requires_grad=True)
    count = float(mask.sum()) if tokens is None else tokens
    if mode == "token-mean":
        return mask.float() * (1.0 if denominator is None else count / denominator)
    with torch.enable_grad():
        loss = aggregate(unit, mask, mode, denominator=denominator, sequences=sequences)
    return count * torch.autograd.grad(loss, unit)[0]


def aggregate(
    per_token: Tensor,
    mask: Tensor,
    mode: Aggregation = "token-mean",
    *,
    denominator: float | None = None,
    sequences: Tensor | None = None,
) -> Tensor:
    """The scalar loss: a sum of the masked tokens over a denominator.
        token-mean      sum of tokens / number of tokens (DAPO)
        sequence-mean   sum over sequences of the mean over their tokens / number of sequences with a token (GRPO)
        sequence-sum    sum of tokens / number of sequences with a token (LUSPO)
        constant        sum of tokens / denominator, which is required: sequences x longest length (Dr.GRPO)
    With a denominator that counts the whole batch, micro-batches and ranks add up to the loss of the undivided batch.
    sequences: the number of each token's sequence, from 0, for packed tokens. Raises ValueError for an empty mask, a
    denominator that is not positive, a missing one under "constant", and packed tokens without `sequences`.
    """
    mask = _checked_mask(per_token, per_token, mask)
    kept = per_token.where(mask, 0)
    if mode == "sequence-mean":
        kept = kept / sequence_sum(mask.to(kept.dtype), sequences).clamp_min(1)
    elif mode not in get_args(Aggregation):
        raise ValueError(f"mode is {mode!r}; give {', '.join(map(repr, get_args(Aggregation)))}")
    if denominator is None:
        if mode == "constant":
            raise ValueError(
                "mode 'constant' needs a denominator; give the number of sequences times the longest length"
            )
        return kept.sum() / (mask.sum() if mode == "token-mean" else sequence_count(mask, sequences))
    if not denominator > 0:
        raise ValueError(f"denominator is {denominator}; give a positive count")
    return kept.sum() / denominator


def _tokens(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, rule: ClipBand, sequences: Tensor | None
) -> Tokens:
    """The input of an objective, with zeros outside the mask. Raises ValueError as `policy_loss` does."""
    dtype = torch.promote_types(logp.dtype, torch.float32)
    mask = _checked_mask(logp, old_logp, mask)
    _check_broadcast(advantages, logp)
    fixed = logp.to(dtype).where(mask, 0)
    old = old_logp.detach().to(dtype).where(mask, 0)
    adv = advantages.detach().to(dtype).expand_as(fixed).where(mask, 0)
    log_ratio = fixed - old
    ratio = log_ratio.exp()
    _check_finite(logp=fixed, old_logp=old, advantages=adv, ratio=ratio)
    return Tokens(fixed, old, log_ratio, ratio, adv, mask, rule, sequences)


def _checked_mask(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    if not logp.shape == old_logp.shape == mask.shape:
        raise ValueError(
            f"shapes differ: logp {tuple(logp.shape)}, old_logp {tuple(old_logp.shape)}, mask {tuple(mask.shape)}; "
            "give one entry per token"
        )
    mask = mask.bool()
    if not bool(mask.any()):
        raise ValueError(f"mask: no token of {mask.numel()} counts; skip this batch, or check how the mask is built")
    return mask


def _check_broadcast(advantages: Tensor, logp: Tensor) -> None:
    fits = advantages.dim() == logp.dim() and all(
        a in (1, n) for a, n in zip(advantages.shape, logp.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"advantages: shape {tuple(advantages.shape)} does not match logp {tuple(logp.shape)}; give one per token, "
            "or (B, 1) for one per sequence"
        )


def _check_finite(**named: Tensor) -> None:
    if bool(torch.stack([x.isfinite().all() for x in named.values()]).all()):
        return
    for name, x in named.items():
        if not bool(x.isfinite().all()):
            position = tuple((~x.isfinite()).nonzero()[0].tolist())
            raise ValueError(
                f"{name} is {x[position].item()} at {position}; a token inside the mask needs finite numbers: "
                "mask it out, or find its cause"
            )
