"""Corrections for tokens that another policy sampled: factors of the advantages, from log-probabilities alone.

Three policies: mu sampled the tokens, pi_old is what the ratio pi/pi_old is clipped against, pi is being updated. PPO
bounds pi/pi_old; a correction treats what is left,

    w = pi_old / mu    of each token,    W = prod w    of its sequence,    (prod w)^(1/length)    its geometric mean.

A factor is >= 0 and detached; multiplying an advantage by it multiplies the token's loss and gradient. Nothing is
removed from the mask, so a token of factor 0 still counts in the denominator of `aggregate`. Where mu = pi_old = pi,
every correction gives 1. The sequences are the rows of padded tokens (B, T), or those of `sequences` for packed (N,).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.objective.sequences import sequence_mean, sequence_sum
from entrostat.registry import Registry

Level = Literal["token", "sequence", "geometric"]


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """What a correction reads, all (...) and detached.

    logp, old_logp, sampler_logp: ln pi, ln pi_old and ln mu of the sampled tokens, nats. entropy: H of pi, nats, None
    where it is not measured. sequences: the number of each token's sequence, for packed tokens.
    Raises ValueError for shapes that differ and for a sampler_logp that is not finite inside the mask.
    """

    logp: Tensor
    old_logp: Tensor
    sampler_logp: Tensor
    advantages: Tensor
    mask: Tensor
    entropy: Tensor | None = None
    sequences: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = {name: tuple(getattr(self, name).shape) for name in ("logp", "old_logp", "sampler_logp", "mask")}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"shapes differ: {shapes}; slice sampler_logp to the tokens of the loss")
        broken = self.mask.bool() & ~self.sampler_logp.isfinite()
        if bool(broken.any()):
            place = tuple(broken.nonzero()[0].tolist())
            raise ValueError(
                f"sampler_logp is {self.sampler_logp[place].item()} at {place}; a sampled token has a finite "
                "log-probability: mask the token out, or ask the sampler for the log-probabilities of its tokens"
            )

    @property
    def log_weight(self) -> Tensor:
        """ln w = ln pi_old - ln mu; 0 outside the mask."""
        return self._difference(self.old_logp)

    @property
    def log_moved(self) -> Tensor:
        """ln pi - ln mu; 0 outside the mask."""
        return self._difference(self.logp)

    def log_weight_of(self, level: Level) -> Tensor:
        """ln w of the token, or of its sequence as product or geometric mean, repeated at every token."""
        if level == "token":
            return self.log_weight
        if level == "sequence":
            return sequence_sum(self.log_weight, self.sequences)
        return sequence_mean(self.log_weight, self.mask.bool(), self.sequences)

    def _difference(self, logp: Tensor) -> Tensor:
        return (logp - self.sampler_logp).to(torch.promote_types(logp.dtype, torch.float32)).where(self.mask.bool(), 0)


class Correction(ABC):
    """One correction. of_old: whether it weighs pi_old/mu, and so gives 1 where pi_old is the sampler's own.

    needs_entropy: whether it reads `SampledTokens.entropy`.
    """

    of_old: ClassVar[bool] = True
    needs_entropy: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, tokens: SampledTokens) -> Tensor:
        """The factors (...), >= 0; those outside the mask are not read."""


correction: Registry[Correction] = Registry("correction", Correction, "entrostat.objective")


@correction("tis")
@dataclass(frozen=True)
class Tis(Correction):
    """Truncated importance sampling: the factor max(low, min(w, cap)), with w of the token, of the sequence or its
    geometric mean.

    Source: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (2025), token level,
    cap 2 to 8; verl, trainer/ppo/rollout_corr_helper.py (cap 2, both levels). low: 0 there; OpenRLHF clamps from below
    too (models/loss.py, .5 to 5). The geometric mean is ours, beside the masks that use it.
    Raises ValueError for another level and for bounds out of order.
    """

    cap: float = 2.0
    low: float = 0.0
    level: Level = "token"

    def __post_init__(self) -> None:
        _check_level(self)
        if not 0 <= self.low <= 1 <= self.cap < math.inf:
            raise ValueError(f"Tis: low is {self.low} and cap {self.cap}; give 0 <= low <= 1 <= cap, finite")

    @override
    def __call__(self, tokens: SampledTokens) -> Tensor:
        return _exp_between(tokens.log_weight_of(self.level), self.low, self.cap)


@correction("mis")
@dataclass(frozen=True)
class Mis(Correction):
    """Masked importance sampling: the factor w where low <= w <= high, else 0; levels as in `Tis`.

    Source: Liu et al., "When Speed Kills Stability" (2025); TRL, vllm_importance_sampling_mode token_mask and
    sequence_mask, whose cap of 3 is our default. verl takes the tokens out of the mask, so out of the denominator, too.
    Raises ValueError for another level and for bounds out of order.
    """

    low: float = 0.0
    high: float = 3.0
    level: Level = "token"

    def __post_init__(self) -> None:
        _check_level(self)
        _check_band(self)

    @override
    def __call__(self, tokens: SampledTokens) -> Tensor:
        log_weight = tokens.log_weight_of(self.level)
        return _exp_between(log_weight, self.low, self.high).where(_inside(log_weight, self.low, self.high), 0)


@correction("icepop")
@dataclass(frozen=True)
class IcePop(Mis):
    """IcePop: `Mis` with a lower bound too, the factor w where .5 <= w <= 5, else 0, per token.

    Source: arXiv 2510.18855 (Ring-1T); .5 and 5 as in OpenRLHF (models/loss.py).
    Raises ValueError as `Mis`.
    """

    low: float = 0.5
    high: float = 5.0


@correction("seq-mask-tis")
@dataclass(frozen=True)
class SeqMaskTis(Correction):
    """Token weights inside sequences near the sampler: the factor min(w, cap) where the geometric mean of the sequence
    is in [low, high], else 0.

    cap: None leaves w as it is, as the source does. Source: OpenRLHF, models/loss.py, type "seq-mask-tis", .5 to 5.
    Raises ValueError for bounds out of order.
    """

    low: float = 0.5
    high: float = 5.0
    cap: float | None = None

    def __post_init__(self) -> None:
        _check_band(self)
        _check_cap(self.cap, "SeqMaskTis")

    @override
    def __call__(self, tokens: SampledTokens) -> Tensor:
        inside = _inside(tokens.log_weight_of("geometric"), self.low, self.high)
        return _exp_between(tokens.log_weight, 0, self.cap).where(inside, 0)


@correction("decoupled")
@dataclass(frozen=True)
class Decoupled(Correction):
    """Decoupled PPO: the ratio pi/pi_old is clipped, and the token weighs w = pi_old/mu; 0 where w > cap.

    Source: arXiv 2110.00641 (batch size-invariance); with the cap, AReaL (arXiv 2505.24298), behav_imp_weight_cap.
    cap: None for no limit. Raises ValueError for a cap below 1.
    """

    cap: float | None = 5.0

    def __post_init__(self) -> None:
        _check_cap(self.cap, "Decoupled")

    @override
    def __call__(self, tokens: SampledTokens) -> Tensor:
        log_weight = tokens.log_weight
        return _exp_between(log_weight, 0, self.cap).where(_inside(log_weight, 0, self.cap), 0)


@correction("opsm")
@dataclass(frozen=True)
class Opsm(Correction):
    """Off-policy sequence masking: a punished completion is dropped where the mean of ln mu - ln pi over its tokens
    exceeds `delta`, nats per token; every other factor is 1.

    Punished is A < 0, token by token. Source: DeepSeek-V3.2, arXiv 2512.02556, section 3.1; slime, --use-opsm
    (utils/ppo_utils.py), whose default is 1e-4 and which measures against pi_old. Raises ValueError for delta < 0.
    """

    of_old = False

    delta: float = 1e-4

    def __post_init__(self) -> None:
        if not self.delta >= 0:
            raise ValueError(f"Opsm.delta is {self.delta}; give a limit in nats per token, at least 0")

    @override
    def __call__(self, tokens: SampledTokens) -> Tensor:
        moved = -sequence_mean(tokens.log_moved, tokens.mask.bool(), tokens.sequences)
        return torch.ones_like(moved).masked_fill((tokens.advantages < 0) & (moved > self.delta), 0)


@correction("estr")
@dataclass(frozen=True)
class Estr(Correction):
    """A trust region in units of entropy: the factor 1 where (ln pi - ln mu)^2 / (H + epsilon) <= tau, else 0.

    H: entropy at the token's position, nats. Source: arXiv 2607.22186, of which we read the rule and public notes:
    epsilon .01; we found no published tau, and no code. Departs: trainers give the entropy of pi, where the paper has
    that of the sampler; `policy_loss(entropy=...)` takes either.
    Raises ValueError for tau or epsilon <= 0, and where no entropy is given.
    """

    of_old = False
    needs_entropy = True

    tau: float = 1.0
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        if not (self.tau > 0 and self.epsilon > 0):
            raise ValueError(f"Estr: tau is {self.tau} and epsilon {self.epsilon}; give both above 0")

    @override
    def __call__(self, tokens: SampledTokens) -> Tensor:
        if tokens.entropy is None:
            raise ValueError("correction 'estr' divides by the entropy of each token; give `entropy`")
        distance = tokens.log_moved.square() / (tokens.entropy.where(tokens.mask.bool(), 0) + self.epsilon)
        return (distance <= self.tau).to(distance.dtype)


def correction_named(name: str) -> Correction:
    """The correction of this recipe name, with its published settings. Raises ValueError if there is none."""
    return correction.made(name, correction.find(name)())


def _exp_between(log_weight: Tensor, low: float, high: float | None) -> Tensor:
    """exp(log_weight) clamped to [low, high] before it can overflow."""
    return log_weight.clamp(math.log(low) if low else -math.inf, math.inf if high is None else math.log(high)).exp()


def _inside(log_weight: Tensor, low: float, high: float | None) -> Tensor:
    """Whether exp(log_weight) is in [low, high]."""
    above = log_weight >= (math.log(low) if low else -math.inf)
    return above & (log_weight <= (math.inf if high is None else math.log(high)))


def _check_level(method: Tis | Mis) -> None:
    if method.level not in get_args(Level):
        raise ValueError(f"{type(method).__name__}.level is {method.level!r}; give {', '.join(get_args(Level))}")


def _check_band(method: Mis | SeqMaskTis) -> None:
    if not 0 <= method.low <= 1 <= method.high < math.inf:
        raise ValueError(
            f"{type(method).__name__}: low is {method.low} and high {method.high}; give 0 <= low <= 1 <= high, finite"
        )


def _check_cap(cap: float | None, owner: str) -> None:
    if cap is not None and not 1 <= cap < math.inf:
        raise ValueError(f"{owner}.cap is {cap}; give a weight of at least 1, or null for no limit")
