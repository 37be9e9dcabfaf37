"""The protocol between a campaign and a trainer.

Steps count optimizer steps since the campaign's start, so a campaign begins at step 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entrostat.runs import Run, Trajectory

Line = Mapping[str, Any]
Listener = Callable[[dict[str, Any]], None]  # called with each line of a run as it is written


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk, and the step of the campaign that they belong to."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A controller's plan for the next campaign.

    budget: maximum number of optimizer steps, 0 for no training. rate: factor on the learning rate. cause: the reason,
    if the plan differs from a full campaign. Raises ValueError for budget < 0 or rate <= 0.
    """

    budget: int
    rate: float = 1.0
    cause: str | None = None

    def __post_init__(self) -> None:
        if self.budget < 0 or self.rate <= 0:
            raise ValueError(f"{self}: give budget >= 0 and rate > 0")


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of the campaign that a controller sees after each optimizer step.

    step: optimizer steps done. budget: the plan's. steps: the step lines so far. evals: the lines of the select split,
    in the order of evaluation; one with "tasks" (first, last) covers only these tasks of the split.
    kept: steps whose weights can still be evaluated or kept, newest last. split: number of tasks of the select split.
    """

    step: int
    budget: int
    steps: Sequence[Line]
    evals: Sequence[Line]
    kept: tuple[int, ...]
    split: int

    @property
    def select(self) -> Trajectory | None:
        """pass@1 by step over whole evaluations of the select split; None before the first."""
        return whole_trajectory(self.evals)


@dataclass(frozen=True, slots=True)
class GoOn:
    """Continue training; at the last step, end the campaign. keep: a kept step whose weights stay available."""

    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate tasks first ... last - 1 of the select split with the weights of a kept step, then decide again."""

    step: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the campaign. keep: the step whose weights count as its peak; None: that of the select split."""

    keep: int | None = None
    cause: str = ""


Order = GoOn | Evaluate | Stop


@dataclass(frozen=True, slots=True)
class CampaignTrace:
    """The course of one campaign.

    select, report: pass@1 by step on the two splits. start, peak, end: checkpoints of the first step, of the first
    maximum on the select split (or of the step `confirmed` that the controller chose), and of the last step.
    steps, evals: the lines of the optimizer steps and of the select split's evaluations.
    Raises ValueError for a checkpoint of another step, and if the report split was not evaluated at peak and end.
    """

    select: Trajectory
    report: Trajectory
    start: Checkpoint
    peak: Checkpoint
    end: Checkpoint
    confirmed: int | None = None
    steps: Sequence[Line] = ()
    evals: Sequence[Line] = ()

    def __post_init__(self) -> None:
        peak = self.select.peak_step if self.confirmed is None else self.confirmed
        wanted = {"start": 0, "peak": peak}
        if self.confirmed is None:
            wanted["end"] = self.select.steps[-1]
        for name, step in wanted.items():
            if getattr(self, name).step != step:
                raise ValueError(
                    f"{name} is a checkpoint of step {getattr(self, name).step}, but the select split has its {name} "
                    f"at step {step}; keep the checkpoint of that step"
                )
        for checkpoint in (self.peak, self.end):
            self.report.at(checkpoint.step)

    def __repr__(self) -> str:
        return f"CampaignTrace({self.steps_used} steps, select: {self.select}, report: {self.report})"

    @property
    def steps_used(self) -> int:
        """Optimizer steps that the campaign took."""
        return self.end.step


class Engine(Protocol):
    """A trainer that can run campaigns: the embedded one, or a host's."""

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """Train from `start` for at most plan.budget steps, with the evaluations of the engine's own recipe.

        decide is called after step 0, after each step, and again after each evaluation that it orders; it ends the
        campaign with Stop. Its result depends only on its argument, so a resumed run decides the same.
        record: the run folder, which a resumed run continues; start, peak and end checkpoints are kept in its
        checkpoints/, each a folder named by the digest of its content (`entrostat.runs.files.folder_digest`).
        """
        ...


def whole_trajectory(evals: Sequence[Line]) -> Trajectory | None:
    """pass@1 by step of the evaluations of a whole split; None without any."""
    whole = [line for line in evals if not line.get("tasks")]
    return Trajectory.from_evals(whole) if whole else None
