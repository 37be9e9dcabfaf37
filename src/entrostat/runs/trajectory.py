"""pass@1 of one split over the steps of a campaign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from entrostat.runs.passk import mean_over_tasks


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Evaluations of one split, at least one, in the order of their steps.

    steps: optimizer steps since the campaign's start. pass_at_1: one value in 0 ... 1 per step.
    ValueError: no evaluation, unequal lengths, steps that do not grow, a value outside 0 ... 1.
    """

    steps: tuple[int, ...]
    pass_at_1: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("steps is empty; a trajectory needs at least one evaluation")
        if len(self.steps) != len(self.pass_at_1):
            raise ValueError(
                f"steps has {len(self.steps)} entries and pass_at_1 {len(self.pass_at_1)}; give one per step"
            )
        for before, after in pairwise(self.steps):
            if after <= before:
                raise ValueError(f"steps goes from {before} to {after}; give each step once, in growing order")
        for step, value in zip(self.steps, self.pass_at_1, strict=True):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"pass_at_1 is {value} at step {step}, outside 0 ... 1")

    @classmethod
    def from_evals(cls, evals: Iterable[Mapping[str, Any]]) -> Trajectory:
        """The trajectory of one split from the evaluation lines of a run folder.

        A step that was evaluated part by part has the mean over the tasks of all its parts.
        """
        counts: dict[int, list[tuple[int, int]]] = {}
        for line in evals:
            counts.setdefault(int(line["step"]), []).extend((n, c) for _, n, c in line["results"])
        steps = tuple(sorted(counts))
        return cls(steps, tuple(mean_over_tasks(counts[step], k=1) for step in steps))

    @property
    def peak_index(self) -> int:
        """Where pass@1 is highest; the first such place."""
        return self.pass_at_1.index(max(self.pass_at_1))

    @property
    def peak_step(self) -> int:
        """The step of the peak."""
        return self.steps[self.peak_index]

    @property
    def peak(self) -> float:
        """The highest pass@1."""
        return max(self.pass_at_1)

    @property
    def end(self) -> float:
        """The last pass@1."""
        return self.pass_at_1[-1]

    def at(self, step: int) -> float:
        """pass@1 at `step`. ValueError: that step was not evaluated."""
        if step not in self.steps:
            raise ValueError(f"step {step} was not evaluated; evaluated were {', '.join(map(str, self.steps))}")
        return self.pass_at_1[self.steps.index(step)]
