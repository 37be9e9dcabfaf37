"""What the model wrote: for the same tasks at a run's start, peak and end, and one sample token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.report.reading import RunData
from entrostat.runs.checks import is_number

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
    """Up to `limit` tasks that have a sample at every moment; none if the run kept no such samples.

    The moments are start, peak and end: the first step with samples, the one nearest to the peak, and the last; fewer
    if they coincide. The split is the first of report, select and train that has samples.
    """
    for split in SPLITS:
        samples = [sample for sample in run.samples if sample["split"] == split]
        if samples:
            return _aligned(samples, _moments(samples, run))[:limit]
    return []


def shortened(text: str) -> str:
    """`text`, without its middle if it is long."""
    left_out = len(text) - HEAD - TAIL
    return text if left_out <= 0 else f"{text[:HEAD]}\n[{left_out} characters omitted]\n{text[-TAIL:]}"


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


@dataclass(frozen=True, slots=True)
class TokenView:
    """The tokens of one completion, one entry each.

    polarity: advantage times sensitivity, above 0 if learning from the token raises entropy; None if no advantage was
    recorded. sensitivity: the same for advantage 1. entropy of the distribution the token was drawn from, surprisal
    -ln p of the token; nats.
    """

    text: list[str]
    polarity: list[float] | None
    sensitivity: list[float]
    entropy: list[float]
    surprisal: list[float]


def token_view(sample: Mapping[str, Any]) -> TokenView | None:
    """The tokens of a sample line; None if it has none or they are not a token record."""
    record = sample.get("tokens")
    if not isinstance(record, Mapping):
        return None
    text = record.get("text")
    if not (isinstance(text, list) and text and all(isinstance(piece, str) for piece in text)):
        return None
    logp, entropy, sensitivity = (
        _numbers(record.get(field), len(text)) for field in ("logp", "entropy", "sensitivity")
    )
    if logp is None or entropy is None or sensitivity is None:
        return None
    advantage = _numbers([sample.get("advantage")], 1)
    polarity = [advantage[0] * value for value in sensitivity] if advantage else None
    return TokenView(text, polarity, sensitivity, entropy, [-value for value in logp])


def _numbers(column: object, length: int) -> list[float] | None:
    """`column` if it is a list of `length` finite numbers."""
    if not isinstance(column, list) or len(column) != length:
        return None
    return column if all(map(is_number, column)) else None
