"""How long a campaign runs, when it stops, and which checkpoint it hands over.

Stop rules of "Self-Improvement Can Self-Regress" (arXiv 2606.21090). A rule sees only the select split and
has no state: it reads what it needs from the traces of earlier campaigns, so a resumed chain decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from entrostat.campaign.engine import CampaignTrace, Checkpoint, GoOn, Order, Plan, Progress, Stop
from entrostat.registry import Registry
from entrostat.runs import Trajectory


@runtime_checkable
class Controller(Protocol):
    """A campaign rule: it decides the plan of a campaign, what happens after each step, and the hand-over."""

    @property
    def steps(self) -> int:
        """Maximum optimizer steps of any campaign."""
        ...

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """The next campaign's plan; history: the chain's earlier campaigns, oldest first."""
        ...

    def decide(self, progress: Progress, history: Sequence[CampaignTrace]) -> Order:
        """What to do after a step: continue, evaluate, or stop. The same for the same arguments."""
        ...

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The checkpoint that the next campaign starts from."""
        ...

    def lesson(self, trace: CampaignTrace, history: Sequence[CampaignTrace]) -> Mapping[str, Any] | None:
        """What to record about a finished campaign: a decision line's `kind`, `cause` and more, or None."""
        ...


campaign_rule: Registry[Controller] = Registry("campaign rule", Controller, "entrostat.campaign")


class StopRule:
    """A campaign rule that needs only the select split: `budget`, `should_stop` and `hand_over`."""

    __slots__ = ()
    steps: int

    def __str__(self) -> str:
        """The rule's name, without its settings, for the cause of a decision."""
        return type(self).__name__

    def budget(self, history: Sequence[CampaignTrace]) -> int:  # noqa: ARG002
        """Maximum steps of the next campaign; history: the chain's earlier campaigns, oldest first."""
        return self.steps

    def should_stop(self, trajectory: Trajectory) -> bool:  # noqa: ARG002
        """Whether to end the campaign now; trajectory: its select split so far."""
        return False

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The checkpoint that the next campaign starts from: the end."""
        return trace.end

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """The budget, at the full learning rate."""
        budget = self.budget(history)
        return Plan(budget, cause=None if budget == self.steps else f"{self}: {budget} of {self.steps} steps")

    def decide(self, progress: Progress, history: Sequence[CampaignTrace]) -> Order:  # noqa: ARG002
        """Stop if `should_stop`; at a step without an evaluation, continue."""
        seen = progress.select
        if seen is None or seen.steps[-1] != progress.step or not self.should_stop(seen):
            return GoOn()
        return Stop(cause=f"{self}: {standing(seen)}")

    def lesson(self, trace: CampaignTrace, history: Sequence[CampaignTrace]) -> Mapping[str, Any] | None:  # noqa: ARG002
        """None: nothing to record."""
        return None


@campaign_rule("naive")
@dataclass(frozen=True, slots=True)
class Naive(StopRule):
    """Run all `steps` and hand over the end. Raises ValueError for steps < 1."""

    steps: int = 20

    def __post_init__(self) -> None:
        at_least_one("steps", self.steps)


@campaign_rule("es-online", mode="online")
@campaign_rule("es-budget", mode="budget")
@dataclass(frozen=True, slots=True)
class EarlyStop(StopRule):
    """Hand over the peak; run at most `patience` steps beyond it.

    The paper "rolls forward the peak checkpoint and sets the next budget to peak_step+3", which has two readings:
        online   stop at step = peak step so far + patience; every campaign may run `steps`
        budget   never stop; the first campaign runs `steps`, the next min(steps, peak step of the last + patience)
    The peak is the first maximum, possibly step 0. Raises ValueError for patience or steps < 1 and any other mode.
    """

    patience: int = 3
    mode: Literal["online", "budget"] = "online"
    steps: int = 20

    def __post_init__(self) -> None:
        at_least_one("patience", self.patience)
        at_least_one("steps", self.steps)
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


def standing(select: Trajectory) -> str:
    """The end and peak of a trajectory, for the cause of a decision."""
    return (
        f"pass@1 on select is {select.end:.3f} at step {select.steps[-1]}, "
        f"its highest was {select.peak:.3f} at step {select.peak_step}"
    )


def at_least_one(field: str, value: int) -> None:
    """Raise ValueError if value < 1."""
    if value < 1:
        raise ValueError(f"{field} is {value}; give at least 1")
