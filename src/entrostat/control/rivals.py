"""Published weightings that `PolarityAware` is compared with, in the same interface.

Where a number or a reading was not public in what we could read, the class says so. A is the advantage, H the entropy
of the token's state, p the probability of the sampled token, P = A T the polarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting
from entrostat.control.reweighting import by_polarity
from entrostat.entropy import polarity


@weighting("opefo")
@dataclass
class Opefo(Part):
    """OPEFO: weights 1 + lambda on expanding, 1 - lambda on contracting tokens, with the lambda of zero net flow,
        lambda = (D - U) / (D + U),   U, D: sums of P over expanding and of abs(P) over contracting tokens.
    It lies in [-1, 1]; `bound` caps its size. Source: arXiv 2605.11491; ours takes P exact and on-policy, r = 1.
    Raises ValueError for a bound outside (0, 1].
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.bound <= 1:
            raise ValueError(f"Opefo.bound is {self.bound}; give a number in (0, 1]")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        flow = polarity(stats, advantages)
        net, size = flow[mask].sum(), flow[mask].abs().sum()
        balance = (-net / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp(-self.bound, self.bound)
        return by_polarity(flow, 1 + balance, 1 - balance)


@weighting("stare")
@dataclass
class Stare(Part):
    """STARE: rewarded tokens (A > 0) among the `share` of them with the largest surprisal weigh `weight`, while the
    last entropy is below `target`; all others 1.

    adaptive: the weight starts at 1 and moves by `step` a step, up below the target, down otherwise, within [1, most].
    Source: arXiv 2606.19236; that the share is one of the rewarded tokens is our reading.
    Raises ValueError for a share outside (0, 1] and a weight or most below 1.
    """

    needs_entropy = True

    share: float = 0.1
    weight: float = 1.1
    target: float = 0.3
    adaptive: bool = False
    step: float = 0.01
    most: float = 1.5
    _weight: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.weight >= 1 and self.most >= 1):
            raise ValueError(f"Stare: {self}; share must be in (0, 1], weight and most at least 1")

    @override
    def observe(self, step: Measured) -> None:
        low = step.entropy < self.target
        if self.adaptive:
            self._weight = min(max(self._weight + (self.step if low else -self.step), 1.0), self.most)
        else:
            self._weight = self.weight if low else 1.0

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        rewarded = (advantages > 0).expand_as(stats.logp) & mask
        ones = torch.ones_like(stats.logp)
        count = int(self.share * int(rewarded.sum()))
        if count == 0:
            return ones
        surprising = (-stats.logp).masked_fill(~rewarded, float("-inf")).flatten().topk(count).indices
        return ones.flatten().index_fill(0, surprising, self._weight).view_as(ones)

    @override
    def state_dict(self) -> State:
        return {"weight": self._weight}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._weight = state["weight"]


@weighting("steer")
@dataclass
class Steer(Part):
    """STEER: tokens with a large predicted change of entropy weigh less, Omega = A (1 - p) (ln p + H).

    exponential   exp(-rate abs(Omega)), at least `low`
    linear        from `high` at Omega = 0 down to `low` at the largest abs(Omega) of the tokens given
    Source: arXiv 2510.10150, Omega = (A/q) p (1 - p) (ln p + H), here at r = p/q = 1; [.8, 1.2] is the published linear
    range, the rate is our choice. Raises ValueError unless 0 <= low <= 1 <= high and rate > 0.
    """

    form: Literal["exponential", "linear"] = "linear"
    low: float = 0.8
    high: float = 1.2
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in ("exponential", "linear"):
            raise ValueError(f"Steer.form is {self.form!r}; give 'exponential' or 'linear'")
        if not (0 <= self.low <= 1 <= self.high and self.rate > 0):
            raise ValueError(f"Steer: {self}; it needs 0 <= low <= 1 <= high and a positive rate")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        omega = (advantages * -torch.expm1(stats.logp) * (stats.logp + stats.entropy)).abs()
        if self.form == "exponential":
            return (-self.rate * omega).exp().clamp_min(self.low)
        largest = omega[mask].amax().clamp_min(torch.finfo(omega.dtype).tiny)
        return self.high - (self.high - self.low) * (omega / largest).clamp_max(1)


@weighting("entropic")
@dataclass
class EntroPic(Part):
    """EntroPIC: proportional-integral control of the balance between rewarded and punished tokens.

    e = target - H,  a = clip(kp e + ki sum e),  weights 1 - a where A > 0 and 1 + a where A < 0: below the target
    it learns more from failures. Source: arXiv 2511.15248; kp, ki and the clip to [-bound, bound], within which the sum
    of e stops growing, are our choice. Raises ValueError for a target <= 0, gains < 0, bound outside (0, 1].
    """

    needs_entropy = True

    target: float
    kp: float = 1.0
    ki: float = 0.01
    bound: float = 0.9
    _balance: float = field(default=0.0, init=False)
    _sum: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.target > 0 and self.kp >= 0 and self.ki >= 0 and 0 < self.bound <= 1):
            raise ValueError(f"EntroPic: {self}; target must be positive, gains at least 0, bound in (0, 1]")

    @override
    def observe(self, step: Measured) -> None:
        error = self.target - step.entropy
        wanted = self.kp * error + self.ki * (self._sum + error)
        self._balance = min(max(wanted, -self.bound), self.bound)
        if wanted == self._balance or wanted * error < 0:
            self._sum += error

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        return (1 - self._balance * advantages.sign()).expand_as(stats.logp)

    @override
    def state_dict(self) -> State:
        return {"balance": self._balance, "sum": self._sum}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._balance, self._sum = state["balance"], state["sum"]


@weighting("entrocraft")
@dataclass
class Entrocraft(Part):
    """Entrocraft: above a band of entropy only rewarded tokens learn, below it only punished ones, inside it all.

    Source: arXiv 2604.26326, bands whose edges fall along the run: .6 to .4 and .7 to .5. Raises ValueError when the
    lower edge does not lie below the upper one at the start and at the end.
    """

    needs_entropy = True

    lower: Curve = field(default_factory=lambda: Curve.between(0.6, 0.4))
    upper: Curve = field(default_factory=lambda: Curve.between(0.7, 0.5))
    _kept: str = field(default="both", init=False)

    def __post_init__(self) -> None:
        if not all(self.lower.at(share) < self.upper.at(share) for share in (0.0, 1.0)):
            raise ValueError(f"Entrocraft: {self}; the lower edge must lie below the upper one")

    @override
    def observe(self, step: Measured) -> None:
        if step.entropy > self.upper.at(step.progress):
            self._kept = "rewarded"
        else:
            self._kept = "punished" if step.entropy < self.lower.at(step.progress) else "both"

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages = batch.stats, batch.advantages
        keep = {"both": advantages == advantages, "rewarded": advantages > 0, "punished": advantages < 0}[self._kept]
        return keep.to(stats.logp.dtype).expand_as(stats.logp)

    @override
    def state_dict(self) -> State:
        return {"kept": self._kept}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._kept = state["kept"]


@weighting("gepo")
@dataclass
class Gepo(Part):
    """GEPO: in groups of low entropy rewarded tokens weigh `factor`, in groups of high entropy punished ones do.

    A group is `group_size` consecutive rows of padded (B, T) tokens, its entropy their mean H; low and high are the
    groups at or below the `low`-quantile and at or above the `high`-quantile of the groups given. Source: arXiv
    2607.16850; the factor and the quantiles are our choice. Raises ValueError for settings out of range, packed
    tokens and rows that are not whole groups.
    """

    group_size: int
    factor: float = 0.5
    low: float = 0.25
    high: float = 0.75

    def __post_init__(self) -> None:
        if not (self.group_size >= 1 and 0 <= self.factor <= 1 and 0 <= self.low < self.high <= 1):
            raise ValueError(f"Gepo: {self}; it needs group_size >= 1, factor in [0, 1] and 0 <= low < high <= 1")

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        stats, advantages, mask = batch.stats, batch.advantages, batch.mask
        if mask.dim() != 2 or len(mask) % self.group_size:
            raise ValueError(
                f"Gepo: tokens of shape {tuple(mask.shape)} are not whole groups of {self.group_size} rows; "
                "give padded (B, T) tokens with the rows of a group side by side"
            )
        groups = len(mask) // self.group_size
        tokens = mask.reshape(groups, -1)
        entropy = stats.entropy.where(mask, 0).reshape(groups, -1).sum(1) / tokens.sum(1).clamp_min(1)
        edges = entropy.quantile(torch.tensor([self.low, self.high], dtype=entropy.dtype, device=entropy.device))
        by_row = entropy.repeat_interleave(self.group_size)[:, None]
        shrunk = ((by_row <= edges[0]) & (advantages > 0)) | ((by_row >= edges[1]) & (advantages < 0))
        return torch.where(shrunk, self.factor, torch.ones_like(stats.logp))
