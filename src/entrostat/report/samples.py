"""What the model wrote for the same tasks at the start, at the peak and at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.report.reading import RunData

TASKS_SHOWN = 6
SPLITS = ("report", "select", "train")
HEAD, TAIL = 3000, 1000  # characters shown of a long text


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion and its verdict."""

    moment: str
    step: int
    text: str
    outcome: str


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """A task's prompt, and one completion for each moment."""

    task: str
    prompt: str
    completions: tuple[Completion, ...]


def side_by_side(run: RunData, limit: int = TASKS_SHOWN) -> list[TaskSamples]:
    """Up to `limit` tasks that have a sample at every moment; none where the run kept no such samples.

    The moments are start, peak and end: the first step with samples, the one nearest to the peak, and the last; fewer
    where they fall together. The split is the first of report, select and train that has samples.
    """
    for split in SPLITS:
        samples = [sample for sample in run.samples if sample["split"] == split]
        if samples:
            return _aligned(samples, _moments(samples, run))[:limit]
    return []


def shortened(text: str) -> str:
    """`text` without the middle of it where it is long."""
    left_out = len(text) - HEAD - TAIL
    return text if left_out <= 0 else f"{text[:HEAD]}\n[{left_out} characters left out]\n{text[-TAIL:]}"


def _moments(samples: Sequence[Mapping[str, Any]], run: RunData) -> dict[int, str]:
    """Names of the steps to show, in the order of the steps."""
    steps = sorted({int(sample["step"]) for sample in samples})
    moments = {steps[0]: "start", steps[-1]: "end"}
    if run.collapse is not None:
        peak = run.collapse.peak_step
        moments[min(steps, key=lambda step: abs(step - peak))] = "peak"
    return dict(sorted(moments.items()))


def _aligned(samples: Sequence[Mapping[str, Any]], moments: Mapping[int, str]) -> list[TaskSamples]:
    first: dict[tuple[str, int], Mapping[str, Any]] = {}
    for sample in samples:
        first.setdefault((sample["task"], sample["step"]), sample)
    tasks = list(dict.fromkeys(sample["task"] for sample in samples))
    return [
        TaskSamples(
            task,
            shortened(first[task, min(moments)]["prompt"]),
            tuple(
                Completion(name, step, shortened(first[task, step]["completion"]), first[task, step]["outcome"])
                for step, name in moments.items()
            ),
        )
        for task in tasks
        if all((task, step) in first for step in moments)
    ]
