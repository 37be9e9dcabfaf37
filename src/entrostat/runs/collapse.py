"""The course of a campaign's pass@1 over its steps: peak, end, gap, cliff, and the gap that noise alone would show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrostat.runs.passk import mean_over_tasks

COLLAPSE_GAP = 0.2

Counts = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Cliff:
    """The fall after a trajectory's peak.

    low: least pass@1 after the peak. onset_largest: step of the largest drop between two evaluations.
    onset_half: first step below half of the fall. phase_score: share of the fall in that largest drop, 0 ... 1.
    decisions_left: evaluations after onset_largest, where a remedy could still act.
    """

    low: float
    onset_largest: int
    onset_half: int
    phase_score: float
    decisions_left: int


@dataclass(frozen=True, slots=True)
class CollapseReport:
    """One campaign's rise and fall; pass@1 on the report split, at the peak that the select split chose.

    noise_floor: the gap that a policy unchanged since the peak would show by evaluation noise, were peak and gap read
    on the report split itself (with the peak chosen elsewhere its expectation is 0, so the floor errs on the safe
    side); None without counts. cliff: of the report split; None where nothing falls after its peak.
    """

    start: float
    peak: float
    peak_step: int
    end: float
    end_step: int
    gap: float
    collapsed: bool
    noise_floor: float | None
    select_gap: float
    cliff: Cliff | None


def collapse_report(
    select: Trajectory, report: Trajectory, peak_counts: Counts | None = None, threshold: float = COLLAPSE_GAP
) -> CollapseReport:
    """Rise and fall of one campaign.

    select chooses the peak, report is read there. peak_counts: (n, c) per task of the report split at the peak.
    threshold: the gap above which the campaign has collapsed. ValueError: the peak's step is missing in report.
    """
    peak = report.at(select.peak_step)
    gap = peak - report.end
    return CollapseReport(
        start=report.pass_at_1[0],
        peak=peak,
        peak_step=select.peak_step,
        end=report.end,
        end_step=report.steps[-1],
        gap=gap,
        collapsed=gap > threshold,
        noise_floor=None if peak_counts is None else noise_floor(peak_counts, len(report.steps)),
        select_gap=select.peak - select.end,
        cliff=find_cliff(report),
    )


def find_cliff(trajectory: Trajectory) -> Cliff | None:
    """The fall after the first maximum of `trajectory`; None where it never falls."""
    return cliff_of(np.array(trajectory.steps), np.array(trajectory.pass_at_1))


def cliff_of(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Cliff | None:
    """The same of any series; steps (n,) grow, values (n,) are finite."""
    top = int(values.argmax())
    steps, after = steps[top:], values[top:]
    peak, low = float(after[0]), float(after.min())
    fall = peak - low
    if fall <= 0.0:
        return None
    drops = after[:-1] - after[1:]
    largest = int(drops.argmax()) + 1
    below_half = int(np.flatnonzero(2 * (peak - after) > fall)[0])
    return Cliff(
        low=low,
        onset_largest=int(steps[largest]),
        onset_half=int(steps[below_half]),
        phase_score=float(drops.max()) / fall,
        decisions_left=len(steps) - 1 - largest,
    )


def evaluation_error(counts: Counts) -> float:
    """Standard error of pass@1, the mean over m fixed tasks of c/n.

        variance = 1/m^2 sum_i v_i,    v_i = p_i (1 - p_i) / (n_i - 1),    p_i = c_i / n_i

    v_i is the unbiased estimate of the variance of p_i. Tasks are fixed, so their spread is not noise. A task with one
    sample says nothing about its own spread: v_i = p (1 - p) with p the mean over all tasks, an upper bound on average.
    counts: (n, c) per task. ValueError: no tasks.
    """
    if not counts:
        raise ValueError("counts is empty; give (n, c) of at least one task")
    mean = math.fsum(c / n for n, c in counts) / len(counts)
    variances = [(c / n) * (1 - c / n) / (n - 1) if n > 1 else mean * (1 - mean) for n, c in counts]
    return math.sqrt(math.fsum(variances)) / len(counts)


def noise_floor(counts: Counts, evaluations: int) -> float:
    """Expected gap, max - end, of `evaluations` independent evaluations of a policy that never changes.

        floor = error * E[max of `evaluations` standard normals],    E[max] = integral of x T phi(x) Phi(x)^(T-1)

    counts: (n, c) per task of one evaluation. Evaluations on common random numbers are less noisy than that.
    ValueError: no tasks, or evaluations < 1.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations is {evaluations}; a trajectory has at least 1")
    return evaluation_error(counts) * _expected_maximum(evaluations)


def _expected_maximum(count: int) -> float:
    from scipy import integrate, special  # slow to import and rarely needed

    x = np.linspace(-12.0, 12.0, 4801)
    log_density = -(x**2) / 2 - math.log(math.sqrt(2 * math.pi)) + (count - 1) * special.log_ndtr(x)
    return float(integrate.trapezoid(x * count * np.exp(log_density), x))


def trace_oracle(select: Trajectory, report: Trajectory, stops: Callable[[Trajectory], bool]) -> float:
    """What a stop rule would have handed over, applied afterwards to a campaign that ran to its end.

    `stops` sees the select split up to each step in turn; the first time it is true, or at the end, the peak so far
    is handed over and read on the report split.
    """
    for end in range(1, len(select.steps) + 1):
        seen = Trajectory(select.steps[:end], select.pass_at_1[:end])
        if stops(seen):
            break
    return report.at(seen.peak_step)


def hindsight_oracle(chain: Sequence[Trajectory]) -> float:
    """The best pass@1 at any step of any campaign of a chain. ValueError: no campaigns."""
    if not chain:
        raise ValueError("chain is empty; give the trajectory of at least one campaign")
    return max(trajectory.peak for trajectory in chain)


def end_to_peak(trajectory: Trajectory, least_peak: float = 0.05) -> float:
    """end / peak, or 1 where the peak is below `least_peak`: a ratio of two near-zeros says nothing."""
    return 1.0 if trajectory.peak < least_peak or trajectory.peak == 0.0 else trajectory.end / trajectory.peak


def carryover(chain: Sequence[Trajectory]) -> tuple[float, ...]:
    """What each hand-over gave or took: first pass@1 of a campaign minus last pass@1 of the one before."""
    return tuple(after.pass_at_1[0] - before.end for before, after in pairwise(chain))


def slope_of_ends(chain: Sequence[Trajectory]) -> float:
    """Least-squares slope of the campaigns' last pass@1, per campaign. ValueError: fewer than two campaigns."""
    if len(chain) < 2:
        raise ValueError(f"chain has {len(chain)} campaigns; a slope needs at least 2")
    return float(np.polyfit(np.arange(len(chain)), [trajectory.end for trajectory in chain], 1)[0])


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

    def __repr__(self) -> str:
        return (
            f"Trajectory({len(self.steps)} evaluations, steps {self.steps[0]} to {self.steps[-1]}: pass@1 "
            f"{self.pass_at_1[0]:.3f} first, {self.peak:.3f} at the peak (step {self.peak_step}), {self.end:.3f} last)"
        )

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
