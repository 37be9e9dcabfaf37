"""How long a campaign runs, when it stops, and which checkpoint it hands over.

Stop rules of "Self-Improvement Can Self-Regress" (arXiv 2606.21090). A rule sees the select split and nothing else, and
holds no state: what it needs from earlier campaigns it reads from their traces, so a resumed chain decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from entrostat.campaign.engine import CampaignTrace, Checkpoint
from entrostat.runs import Trajectory


class StopRule(Protocol):
    """Decides over a campaign's length and its hand-over."""

    def budget(self, history: Sequence[CampaignTrace]) -> int:
        """Most steps of the next campaign; history: the chain's earlier campaigns, oldest first."""
        ...

    def should_stop(self, trajectory: Trajectory) -> bool:
        """Whether to end the campaign now; trajectory: its select split so far."""
        ...

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The checkpoint that the next campaign starts from."""
        ...


@dataclass(frozen=True, slots=True)
class Naive:
    """Run all `steps` and hand over the end. ValueError: steps < 1."""

    steps: int = 20

    def __post_init__(self) -> None:
        _at_least_one("steps", self.steps)

    def budget(self, history: Sequence[CampaignTrace]) -> int:  # noqa: ARG002
        """Always `steps`."""
        return self.steps

    def should_stop(self, trajectory: Trajectory) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The end."""
        return trace.end


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Hand over the peak; spend at most `patience` steps beyond it.

    The paper "rolls forward the peak checkpoint and sets the next budget to peak_step+3", which has two readings:
        online   stop at step = peak step so far + patience; every campaign may take `steps`
        budget   never stop; the first campaign takes `steps`, the next min(steps, peak step of the last + patience)
    The peak is the first maximum; step 0 may be it. ValueError: patience or steps < 1, or another mode.
    """

    patience: int = 3
    mode: Literal["online", "budget"] = "online"
    steps: int = 20

    def __post_init__(self) -> None:
        _at_least_one("patience", self.patience)
        _at_least_one("steps", self.steps)
        if self.mode not in ("online", "budget"):
            raise ValueError(f"mode is {self.mode!r}; choose 'online' or 'budget'")

    def budget(self, history: Sequence[CampaignTrace]) -> int:
        """`steps`; in mode budget after a campaign min(steps, its peak step + patience)."""
        if self.mode == "budget" and history:
            return min(self.steps, history[-1].peak.step + self.patience)
        return self.steps

    def should_stop(self, trajectory: Trajectory) -> bool:
        """In mode online: whether the peak is `patience` steps old."""
        return self.mode == "online" and trajectory.steps[-1] >= trajectory.peak_step + self.patience

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The peak."""
        return trace.peak


def _at_least_one(field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{field} is {value}; give at least 1")
