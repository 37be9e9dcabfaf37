"""A run folder as the report reads it: series, rise and fall, a row of the headline table, and where time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrostat.runs import CollapseReport, Run, Trajectory, collapse_report

Lines = Sequence[Mapping[str, Any]]
PHASES = ("rollout", "grade", "update", "measure", "evaluate")


@dataclass(frozen=True, slots=True, repr=False)
class RunData:
    """A run folder, read once.

    sample_counts: how many samples each (step, split) has; they stay on disk, `run.iterate_samples` reads them.
    select, report: pass@1 by step; None if the split was never evaluated. collapse: None if no step was evaluated on
    both.
    """

    name: str
    run: Run
    steps: Lines
    evals: Lines
    decisions: Lines
    sample_counts: Mapping[tuple[int, str], int]
    select: Trajectory | None
    report: Trajectory | None
    collapse: CollapseReport | None

    def __repr__(self) -> str:
        return f"RunData({self.name!r}, {len(self.steps)} steps, {len(self.evals)} evaluations)"

    @property
    def last_step(self) -> int:
        """The last step with a line, at least 1."""
        return max([1, *(int(line["step"]) for line in (*self.steps, *self.evals))])


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """A run in the headline table; pass@1 on the report split, entropy of the training tokens in nats, None if unknown.

    handed_over: pass@1 of the checkpoint that the campaign hands over: the one rolled back to, else the end.
    """

    run: str
    start: float | None
    peak: float | None
    peak_step: int | None
    end: float | None
    gap: float | None
    noise_floor: float | None
    collapsed: bool | None
    handed_over: float | None
    entropy_start: float | None
    entropy_end: float | None
    steps: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Sums over a run.

    rollout_tokens, update_tokens: completion tokens per second in sampling and in training (a token counts once for
    each pass over it); None if the run has no such timings. seconds: by phase; grade is the wait for verdicts after
    the last token, because grading begins while other completions are being drawn.
    """

    rollout_tokens: float | None
    update_tokens: float | None
    seconds: dict[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Each phase's share of the time of all phases."""
        whole = sum(self.seconds.values())
        return {phase: value / whole for phase, value in self.seconds.items() if value} if whole else {}


def read_runs(paths: Sequence[str | Path]) -> list[RunData]:
    """The run folders `paths`, in order, each once and with a distinct name. RunError: one is not a run folder."""
    once = list({Path(path).resolve(): path for path in reversed(paths)}.values())[::-1]
    return [read_run(path, name) for path, name in zip(once, _names(once), strict=True)]


def read_run(path: str | Path, name: str | None = None) -> RunData:
    """The run folder `path`; name: as it is called in figures, the folder's if left out.

    RunError: it is not a run folder, or a log in it is damaged.
    """
    run = Run.open(path)
    name = Path(path).resolve().name if name is None else name
    evals = run.evals()
    select, report = (_trajectory(evals, split) for split in ("select", "report"))
    collapse = _collapse(evals, select, report)
    return RunData(name, run, run.steps(), evals, run.decisions(), run.sample_counts(), select, report, collapse)


def summary_rows(paths: Sequence[str | Path]) -> list[SummaryRow]:
    """One row per run, in the order of `paths`. RunError: one is not a run folder."""
    return [summarise(run) for run in read_runs(paths)]


def summarise(run: RunData) -> SummaryRow:
    """The run's row of the headline table."""
    _, entropy = series(run.steps, "entropy")
    collapse = run.collapse
    return SummaryRow(
        run=run.name,
        start=run.report.pass_at_1[0] if run.report else None,
        peak=collapse.peak if collapse else None,
        peak_step=collapse.peak_step if collapse else None,
        end=run.report.end if run.report else None,
        gap=collapse.gap if collapse else None,
        noise_floor=collapse.noise_floor if collapse else None,
        collapsed=collapse.collapsed if collapse else None,
        handed_over=_handed_over(run),
        entropy_start=entropy[0] if entropy else None,
        entropy_end=entropy[-1] if entropy else None,
        steps=int(run.steps[-1]["step"]) if run.steps else 0,
    )


def series(lines: Lines, *field: str) -> tuple[list[int], list[float]]:
    """Steps and values of a field, given by its nested names, wherever it is a number."""
    points: list[tuple[int, float]] = []
    for line in lines:
        value: Any = line
        for name in field:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)):
            points.append((int(line["step"]), float(value)))
    return [step for step, _ in points], [value for _, value in points]


def roll_back_step(run: RunData) -> int | None:
    """The step whose checkpoint the run handed over instead of its end; None if it did not roll back."""
    targets = [int(line["to_step"]) for line in run.decisions if line["kind"] == "roll-back" and "to_step" in line]
    return targets[-1] if targets else None


def handed_over_step(run: RunData) -> int | None:
    """The step whose checkpoint the run hands over: the one rolled back to, else its last evaluation."""
    step = roll_back_step(run)
    return run.report.steps[-1] if step is None and run.report else step


def speed(run: RunData) -> Speed:
    """The speed of a run, from the timings of its lines."""
    seconds = dict.fromkeys(PHASES, 0.0)
    tokens = dict.fromkeys(("rollout", "update"), 0)
    for line in run.steps:
        for phase, value in line.get("seconds", {}).items():
            seconds[phase] = seconds.get(phase, 0.0) + value
        for phase, value in line.get("tokens", {}).items():
            tokens[phase] = tokens.get(phase, 0) + value
    seconds["evaluate"] += sum(line.get("seconds") or 0.0 for line in run.evals)
    return Speed(
        _rate(tokens["rollout"], seconds["rollout"]),
        _rate(tokens["update"], seconds["update"]),
        seconds,
    )


def _handed_over(run: RunData) -> float | None:
    step = handed_over_step(run)
    return run.report.at(step) if run.report and step in run.report.steps else None


def _trajectory(evals: Lines, split: str) -> Trajectory | None:
    lines = [line for line in evals if line["split"] == split and line["results"]]
    return Trajectory.from_evals(lines) if lines else None


def _collapse(evals: Lines, select: Trajectory | None, report: Trajectory | None) -> CollapseReport | None:
    """Over the steps at which both splits were evaluated; a run in progress may have evaluated only one of them."""
    if select is None or report is None or not set(select.steps) & set(report.steps):
        return None
    both = [step for step in select.steps if step in report.steps]
    select = Trajectory(tuple(both), tuple(select.at(step) for step in both))
    at_peak = next(line for line in evals if line["split"] == "report" and line["step"] == select.peak_step)
    return collapse_report(select, report, [(n, c) for _, n, c in at_peak["results"]])


def _names(paths: Sequence[str | Path]) -> list[str]:
    """The folders' last parts, as many as distinguish them."""
    parts = [Path(path).resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names if paths else []


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 else None
