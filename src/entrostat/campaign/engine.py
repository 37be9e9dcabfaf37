"""What a campaign asks of a trainer, and what it gets back.

Steps count optimizer steps since the campaign's start, so a campaign begins at step 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from entrostat.runs import Run, Trajectory


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk, and the step of the campaign that they belong to."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class CampaignTrace:
    """What one campaign did.

    select, report: pass@1 by step on the two splits. start, peak, end: checkpoints of the first step, of the first
    maximum on the select split, and of the last step.
    ValueError: a checkpoint of another step, or a report split that was not evaluated at the peak and at the end.
    """

    select: Trajectory
    report: Trajectory
    start: Checkpoint
    peak: Checkpoint
    end: Checkpoint

    def __post_init__(self) -> None:
        steps = {"start": self.select.steps[0], "peak": self.select.peak_step, "end": self.select.steps[-1]}
        for name, checkpoint in (("start", self.start), ("peak", self.peak), ("end", self.end)):
            if checkpoint.step != steps[name]:
                raise ValueError(
                    f"{name} is a checkpoint of step {checkpoint.step}, but the select split has its {name} at step "
                    f"{steps[name]}; keep the checkpoint of that step"
                )
            if name != "start":
                self.report.at(checkpoint.step)

    @property
    def steps_used(self) -> int:
        """Optimizer steps that the campaign took."""
        return self.end.step


class Engine(Protocol):
    """A trainer that can run campaigns: the embedded one, or a host's."""

    def run(
        self, start: Checkpoint, budget: int, should_stop: Callable[[Trajectory], bool], record: Run
    ) -> CampaignTrace:
        """Train from `start` for at most `budget` steps, evaluating both splits at step 0 and after every step.

        should_stop is asked after each evaluation with the select split so far, and ends the campaign when true.
        record: the run folder, which a resumed run continues; start, peak and end checkpoints are kept in it.
        """
        ...
