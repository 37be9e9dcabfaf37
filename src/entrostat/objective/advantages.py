"""Advantages: from the rewards of the sampled completions to one number per completion.

`rewards` always has the shape (..., G): the last dimension is a group, the G completions of one prompt. NaN means
"no reward" (an infrastructure error, or the padding of an uneven group): it is left out of every statistic and its
advantage is 0. The result has the same shape. Rewards are 0/1 or -1/+1 (`signed`); any finite number is accepted.

A degenerate group, whose rewards are all equal, has advantage 0 under every group-relative method; `group_counts`
counts them. Every function raises ValueError for an empty group and for an infinite reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from entrostat.registry import Registry

advantage: Registry[Any] = Registry("advantage", object, "entrostat.objective")
"""Functions of rewards and settings, or classes that take the settings and whose objects are called with rewards."""


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Counts of a batch of rewards: all groups, degenerate groups, completions without a reward."""

    groups: int
    degenerate: int
    missing: int


def reward_tensor(groups: Sequence[Sequence[float | None]]) -> Tensor:
    """Rewards by group, with None for "no reward", as float32 (groups, longest group), with NaN for None."""
    width = max((len(group) for group in groups), default=0)
    for index, group in enumerate(groups):
        if not group:
            raise ValueError(f"rewards: group {index} is empty; every prompt needs at least one completion")
    rows = [[float("nan") if r is None else float(r) for r in group] for group in groups]
    return checked(torch.tensor([row + [float("nan")] * (width - len(row)) for row in rows], dtype=torch.float32))


def signed(rewards: Tensor) -> Tensor:
    """Rewards 0/1 as -1/+1: 2 R - 1."""
    return 2 * rewards - 1


def group_counts(rewards: Tensor) -> GroupCounts:
    """Counts of groups, of degenerate groups (fewer than two distinct rewards) and of missing rewards."""
    missing = checked(rewards).isnan()
    lowest = rewards.masked_fill(missing, float("inf")).amin(-1)
    highest = rewards.masked_fill(missing, float("-inf")).amax(-1)
    degenerate = int((lowest >= highest).sum())
    return GroupCounts(groups=lowest.numel(), degenerate=degenerate, missing=int(missing.sum()))


class EmaBaseline:
    """An exponential moving average of the rewards as baseline: b <- decay b + (1 - decay) mean(R) after each batch.

    A batch is compared with the baseline of the previous batches, so the advantage is unbiased; the first batch with
    its own mean. Raises ValueError for a decay outside [0, 1).
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EmaBaseline.decay is {decay}; give a number in [0, 1)")
        self.decay = decay
        self.value: float | None = None

    def judge(self, rewards: Tensor) -> float:
        """Return the baseline for these rewards, then update it; a batch without any reward changes nothing."""
        if bool(rewards.isnan().all()):
            return self.value or 0.0
        mean = float(rewards.nanmean())
        baseline = mean if self.value is None else self.value
        self.value = self.decay * baseline + (1 - self.decay) * mean
        return baseline

    def state_dict(self) -> dict[str, float | None]:
        """The state as plain numbers."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Continue from a `state_dict`."""
        self.value = state["value"]


@advantage("reinforce")
def reinforce(
    rewards: Tensor, baseline: Literal["none", "batch-mean", "leave-one-out"] | EmaBaseline = "none"
) -> Tensor:
    """REINFORCE: A = R - b with b one of
        none            0
        batch-mean      mean of R over the whole batch
        leave-one-out   mean of R over the other completions of the group; advantage 0 if there is no other (RLOO)
        EmaBaseline     the exponential moving average of earlier batches
    Without a baseline, a group of equal rewards still has an effect; this is part of the method.
    Sources: Williams 1992; RLOO arXiv 2402.14740.
    """
    rewards = checked(rewards)
    if isinstance(baseline, EmaBaseline):
        return _zero_where_missing(rewards - baseline.judge(rewards))
    match baseline:
        case "none":
            return _zero_where_missing(rewards)
        case "batch-mean":
            return _zero_where_missing(rewards - rewards.nanmean())
        case "leave-one-out":
            count = _count(rewards)
            return centred(rewards) * count / (count - 1).clamp_min(1)
        case _:
            raise ValueError(f"baseline is {baseline!r}; give 'none', 'batch-mean', 'leave-one-out' or an EmaBaseline")


@advantage("grpo")
def grpo(rewards: Tensor, epsilon: float = 1e-6) -> Tensor:
    """GRPO: A = (R - mean) / (std + epsilon) over the group, std over n - 1. Source: arXiv 2402.03300."""
    rewards = checked(rewards)
    std = _std(rewards)
    return (centred(rewards) / (std + epsilon)).where(std > 0, 0)


@advantage("dr-grpo")
def dr_grpo(rewards: Tensor) -> Tensor:
    """Dr.GRPO: A = R - mean over the group, without the std (and aggregate by "constant"). Source: arXiv 2503.20783."""
    return centred(checked(rewards))


@advantage("qae")
def quantile(rewards: Tensor, level: float = 0.4, epsilon: float = 1e-6, interpolated: bool = False) -> Tensor:
    """QAE: A = (R - Q) / (std + epsilon), 0 in a degenerate group. Q is the `level`-quantile of the group: its lowest
    reward with at least the share `level` of the group at or below it.

    With rewards 0/1 and a success rate up to 1 - level, Q is 0, so that only the rare successes of the group
    count; above it, Q is 1, so that only its rare failures count. Source: arXiv 2509.22611, equation 4; junkangwu/QAE,
    verl/trainer/ppo/core_algos.py. Departs: the authors' code interpolates between two rewards, so a group whose
    success rate is next to 1 - level has a Q between 0 and 1 and both kinds count: interpolated does the same.
    Raises ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a quantile in (0, 1)")
    rewards = checked(rewards)
    count, std = _count(rewards), _std(rewards)
    if interpolated:
        baseline = rewards.nanquantile(level, dim=-1, keepdim=True)
        return _zero_where_missing((rewards - baseline) / (std + epsilon)).where(std > 0, 0)
    rank = (level * count.double() - 1e-9).ceil().long().clamp_min(1) - 1
    baseline = rewards.sort(-1).values.gather(-1, rank)
    return _zero_where_missing((rewards - baseline) / (std + epsilon)).where(std > 0, 0)


@advantage("w-reinforce")
def w_reinforce(rewards: Tensor, weight: float = 0.1) -> Tensor:
    """W-REINFORCE: A = weight R where R > 0, else R, with rewards -1/+1, which learns mostly from failures.

    Source: arXiv 2506.01347; TianHongZXY/RLVR-Decomposed, verl/trainer/ppo/core_algos.py,
    compute_psr_nsr_outcome_advantage. Departs: none. Raises ValueError for a negative weight.
    """
    if not weight >= 0:
        raise ValueError(f"weight is {weight}; give the weight of the rewarded samples, at least 0")
    rewards = checked(rewards)
    return _zero_where_missing(rewards.where(rewards <= 0, weight * rewards))


def _count(rewards: Tensor) -> Tensor:
    return (~rewards.isnan()).sum(-1, keepdim=True)


def _std(rewards: Tensor) -> Tensor:
    """The standard deviation of the group over n - 1; 0 for a single reward."""
    return (centred(rewards).square().sum(-1, keepdim=True) / (_count(rewards) - 1).clamp_min(1)).sqrt()


def centred(rewards: Tensor) -> Tensor:
    """R - mean of the group; exactly 0 where all rewards of the group are equal, despite rounding of the mean."""
    highest = rewards.nan_to_num(nan=float("-inf")).amax(-1, keepdim=True)
    below = rewards - highest
    return _zero_where_missing(below - below.nanmean(-1, keepdim=True))


def _zero_where_missing(advantages: Tensor) -> Tensor:
    return advantages.nan_to_num(nan=0.0)


def checked(rewards: Tensor) -> Tensor:
    """The rewards as floating point. Raises ValueError for an empty group and an infinite reward."""
    if rewards.numel() == 0:
        raise ValueError(f"rewards: shape {tuple(rewards.shape)} has an empty group; every prompt needs a completion")
    if bool(rewards.isinf().any()):
        position = tuple(rewards.isinf().nonzero()[0].tolist())
        raise ValueError(f"rewards: infinite at {position}; give a finite reward, or NaN if there is none")
    return rewards if rewards.is_floating_point() else rewards.float()
