"""MaxRL: the advantage over the group's mean reward."""

from __future__ import annotations

from torch import Tensor

from entrostat.objective.advantages import advantage, centred, checked


@advantage("maxrl")
def maxrl(rewards: Tensor, epsilon: float = 1e-6) -> Tensor:
    """MaxRL: A = (R - mean) / (mean + epsilon) over the group, 0 where the mean is not positive; rewards 0/1.

    With a rare success the only rewarded completion of G has A = G - 1: harder prompts teach more, as in maximum
    likelihood. Source: arXiv 2602.02710; tajwarfahim/maxrl, verl/trainer/ppo/core_algos.py,
    compute_maxrl_outcome_advantage. Departs: none; where the mean is 0 every reward is.
    """
    rewards = checked(rewards)
    mean = rewards.nanmean(-1, keepdim=True)
    return (centred(rewards) / (mean + epsilon)).where(mean > 0, 0)
