"""REPO-R: advantages rescaled by the token's log-probability, with a coefficient that follows a target entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.curves import Curve, target_curve
from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("repo-r")
@dataclass
class RepoR(Part):
    """REPO-R: A (1 - z ln p) where A > 0, A (1 + z ln p) where A < 0, never past a change of the advantage's sign.

    z > 0 favours unlikely tokens among the rewarded and likely ones among the punished, which raises the entropy. After
    a step with entropy below `target` z moves up, above it down: its size is doubled or halved within [least, most],
    and a halving below `least` turns its sign. target: nats, or a curve over the run. Needs ln p alone.
    Source: arXiv 2603.11682, appendix D.2; SkyRL, pull request 1896, ppo_utils.py, repo_r_rescale_advantages and
    repo_r_update_zeta. Departs: ln p is not limited to -20 as there; the start z = least is our choice.
    Raises ValueError for a target <= 0 and unless 0 < least < most.
    """

    needs_entropy = True

    target: float | Curve
    least: float = 1e-4
    most: float = 0.05
    _z: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._curve: Curve = target_curve(self.target, "RepoR.target")
        if not 0 < self.least < self.most:
            raise ValueError(f"RepoR: least {self.least} and most {self.most}; give 0 < least < most")
        self._z = self.least

    @property
    def coefficient(self) -> float:
        """z."""
        return self._z

    @override
    def observe(self, step: Measured) -> None:
        target = self._curve.at(step.progress)
        if step.entropy == target:
            return
        towards = 1.0 if step.entropy < target else -1.0
        if self._z * towards > 0:
            self._z = towards * min(2 * abs(self._z), self.most)
        else:
            size = abs(self._z) / 2
            self._z = -towards * size if size >= self.least else towards * self.least

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        return (1 - self._z * batch.advantages.sign() * batch.stats.logp).clamp_min(0)

    @override
    def state_dict(self) -> State:
        return {"z": self._z}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._z = state["z"]
