"""The per-token policy loss, and its aggregation for a host that has none of its own.

Every objective here is -A f(r) with r = pi/pi_old, and two numbers a token say all of it: the value f and its slope
df/d ln pi. An objective is therefore a small class that maps detached tensors to a `Surrogate`, and `policy_loss` alone
touches the gradient:
    per_token = -A (f + slope (ln pi - sg[ln pi])),   so that   d per_token / d ln pi = -A slope   exactly.
Shapes: everything is (...), padded (B, T) or packed (N,), with a mask of the same shape; the advantage may broadcast.
What lies outside the mask is never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from entrostat.objective.clipping import ClipBand, ClipRule


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an objective sees of a batch, detached: ratio = pi/pi_old, its logarithm, ln pi, ln pi_old, A, the rule."""

    logp: Tensor
    old_logp: Tensor
    log_ratio: Tensor
    ratio: Tensor
    advantages: Tensor
    mask: Tensor
    rule: ClipBand
    sequences: Tensor | None


@dataclass(frozen=True, slots=True)
class Surrogate:
    """An objective's answer: loss = -A value, its slope df/d ln pi, and which tokens the band cut at which side."""

    value: Tensor
    slope: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


class Objective(Protocol):
    """One policy-gradient objective."""

    def __call__(self, tokens: Tokens) -> Surrogate:
        """The value and slope of every token."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss of every token, and what the objective did to it.

    per_token carries the gradient and is 0 outside the mask. The rest is detached: ratio = pi/pi_old; slope, the ratio
    that the gradient sees (d per_token / d ln pi = -A slope; 0 where the token is clipped away); clipped_low and
    clipped_high, booleans: cut at the lower, upper side of the band.
    """

    per_token: Tensor
    ratio: Tensor
    slope: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


@dataclass(frozen=True, slots=True)
class Clip:
    """PPO's pessimistic clip: f = min(r A, clip(r, low, high) A) / A, the gradient 0 where the rule's limits cut.

    Source: arXiv 1707.06347, section 3; the band is the rule's.
    """

    def __call__(self, tokens: Tokens) -> Surrogate:
        """Value r clamped to the rule's limits; slope r inside them, 0 outside."""
        low, high = tokens.rule.limits(tokens.old_logp, tokens.advantages)
        below, above = tokens.ratio < low, tokens.ratio > high
        slope = tokens.ratio.masked_fill(below | above, 0)
        return Surrogate(tokens.ratio.clamp(low, high), slope, below, above)


@dataclass(frozen=True, slots=True)
class ClipUndetached:
    """The clip whose thresholds eps(p) carry gradient.

    f = 1 + upper(p) above the band (A > 0), 1 - lower(p) below it (A < 0), r inside as in `Clip`. Outside, the slope is
    upper.slope p or -lower.slope p in place of 0: with the published negative slopes, a weak force back into the band
    from above and a weak push further down below it.
    Source: arXiv 2602.09782 leaves the reading open. Raises ValueError for a rule that is not a `ClipRule`.
    """

    def __call__(self, tokens: Tokens) -> Surrogate:
        """Value and slope as in the class."""
        rule = tokens.rule
        if not isinstance(rule, ClipRule):
            raise ValueError(
                f"objective 'clip_undetached' needs a ClipRule, whose thresholds depend on pi; the rule is a "
                f"{type(rule).__name__}; give a ClipRule or use objective 'clip'"
            )
        inside = Clip()(tokens)
        p = tokens.logp.exp()
        above = 1 + rule.upper.slope * p + rule.upper.intercept
        below = 1 - rule.lower.slope * p - rule.lower.intercept
        value = inside.value.where(~inside.clipped_high, above).where(~inside.clipped_low, below)
        slope = inside.slope.where(~inside.clipped_high, rule.upper.slope * p)
        slope = slope.where(~inside.clipped_low, -rule.lower.slope * p)
        return Surrogate(value, slope, inside.clipped_low, inside.clipped_high)


@dataclass(frozen=True, slots=True)
class Reinforce:
    """The plain importance-weighted policy gradient, never clipped: f = r, so at r = 1 the gradient is -A grad ln pi.

    With several inner epochs a batch it pushes punished tokens down without bound: the collapse testbed's objective.
    """

    def __call__(self, tokens: Tokens) -> Surrogate:
        """Value and slope r; nothing is clipped, whatever the rule."""
        never = torch.zeros_like(tokens.mask)
        return Surrogate(tokens.ratio, tokens.ratio, never, never)


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    rule: ClipBand | None = None,
    objective: Objective | Literal["clip", "clip_undetached", "reinforce"] = "clip",
    sequences: Tensor | None = None,
) -> PolicyLoss:
    """The loss of every token under an objective and a clip rule; the host aggregates.

    logp, old_logp: ln pi and ln pi_old of the sampled tokens, nats, shape (...); old_logp gets no gradient.
    advantages: broadcastable to (...), so (B, 1) will do for sequences. mask: (...), true where a token counts.
    rule: the clip rule, the constant .2 by default. objective: a name (published defaults) or an object.
    sequences: for packed tokens under an objective over sequences, the sequence number of each token; padded
    (B, T) tokens need none. Half precision is computed in float32.
    Raises ValueError for shapes that do not fit, an empty mask, and a number inside the mask that is not finite.
    """
    dtype = torch.promote_types(logp.dtype, torch.float32)
    mask = _checked_mask(logp, old_logp, mask)
    _check_broadcast(advantages, logp)
    logp = logp.to(dtype).where(mask, 0)
    fixed = logp.detach()
    old = old_logp.detach().to(dtype).where(mask, 0)
    adv = advantages.detach().to(dtype).expand_as(logp).where(mask, 0)
    log_ratio = fixed - old
    ratio = log_ratio.exp()
    _check_finite(logp=fixed, old_logp=old, advantages=adv, ratio=ratio)
    tokens = Tokens(fixed, old, log_ratio, ratio, adv, mask, rule or ClipRule(), sequences)
    found = (_named(objective) if isinstance(objective, str) else objective)(tokens)
    per_token = -adv * (found.value + found.slope * (logp - fixed))
    return PolicyLoss(per_token, ratio, found.slope, found.clipped_low & mask, found.clipped_high & mask)


def aggregate(
    per_token: Tensor,
    mask: Tensor,
    mode: Literal["token-mean", "sequence-mean", "constant"] = "token-mean",
    *,
    denominator: float | None = None,
    sequences: Tensor | None = None,
) -> Tensor:
    """The scalar loss: a sum of the masked tokens over a denominator.
        token-mean      sum of tokens / number of tokens (DAPO)
        sequence-mean   sum over sequences of their mean token / number of sequences that have a token (GRPO)
        constant        sum of tokens / denominator, which must be given: sequences x longest length (Dr.GRPO)
    A denominator that counts the whole batch makes the sum over micro-batches and ranks equal to the undivided loss.
    sequences: the number of each token's sequence, from 0, when they are packed. Raises ValueError for an empty mask, a
    denominator that is not positive, a missing one under "constant", and packed tokens without `sequences`.
    """
    mask = _checked_mask(per_token, per_token, mask)
    kept = per_token.where(mask, 0)
    if mode == "sequence-mean":
        kept = kept / sequence_sum(mask.to(kept.dtype), sequences).clamp_min(1)
    elif mode not in ("token-mean", "constant"):
        raise ValueError(f"mode is {mode!r}; give 'token-mean', 'sequence-mean' or 'constant'")
    if denominator is None:
        if mode == "constant":
            raise ValueError(
                "mode 'constant' needs a denominator; give the number of sequences times the longest length"
            )
        return kept.sum() / (mask.sum() if mode == "token-mean" else _sequence_count(mask, sequences))
    if not denominator > 0:
        raise ValueError(f"denominator is {denominator}; give a positive count")
    return kept.sum() / denominator


def sequence_sum(x: Tensor, sequences: Tensor | None) -> Tensor:
    """The sum of x over each token's own sequence, shown at every token.

    sequences None: x is padded (B, T) and a row is a sequence. Otherwise both are (N,), packed, and the sequences are
    numbered from 0.
    Raises ValueError for packed tokens without sequence numbers.
    """
    if sequences is None:
        if x.dim() < 2:
            raise ValueError("packed tokens (N,) need `sequences`, the sequence number of each token")
        return x.sum(-1, keepdim=True).expand_as(x)
    return _packed_sums(x, sequences)[sequences]


def _packed_sums(x: Tensor, sequences: Tensor) -> Tensor:
    return x.new_zeros(int(sequences.max()) + 1).index_add(0, sequences, x)


def _sequence_count(mask: Tensor, sequences: Tensor | None) -> Tensor:
    tokens = mask.sum(-1) if sequences is None else _packed_sums(mask.float(), sequences)
    return (tokens > 0).sum()


def _named(name: str) -> Objective:
    match name:
        case "clip":
            return Clip()
        case "clip_undetached":
            return ClipUndetached()
        case "reinforce":
            return Reinforce()
        case _:
            raise ValueError(f"objective is {name!r}; give 'clip', 'clip_undetached', 'reinforce' or an Objective")


def _checked_mask(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    if not logp.shape == old_logp.shape == mask.shape:
        raise ValueError(
            f"shapes differ: logp {tuple(logp.shape)}, old_logp {tuple(old_logp.shape)}, mask {tuple(mask.shape)}; "
            "give one entry a token"
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
            f"advantages: shape {tuple(advantages.shape)} does not fit logp {tuple(logp.shape)}; give one a token, "
            "or (B, 1) for one a sequence"
        )


def _check_finite(**named: Tensor) -> None:
    if bool(torch.stack([x.isfinite().all() for x in named.values()]).all()):
        return
    for name, x in named.items():
        if not bool(x.isfinite().all()):
            position = tuple((~x.isfinite()).nonzero()[0].tolist())
            raise ValueError(
                f"{name} is {x[position].item()} at {position}; a token inside the mask needs finite numbers: "
                "mask it out, or find where it comes from"
            )
