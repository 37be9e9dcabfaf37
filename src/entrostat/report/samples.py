"""What the model wrote: before and after, token by token, and as the data of the page's script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from entrostat.report.panel import extremes
from entrostat.report.reading import RunData, series
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
        steps = [step for step, own in run.sample_counts if own == split]
        if steps:
            return _aligned(run, split, _moments(steps, run))[:limit]
    return []


def shortened(text: str) -> str:
    """`text`, without its middle if it is long."""
    left_out = len(text) - HEAD - TAIL
    return text if left_out <= 0 else f"{text[:HEAD]}\n[{left_out} characters omitted]\n{text[-TAIL:]}"


def _moments(steps: Sequence[int], run: RunData) -> dict[int, str]:
    """Names of the steps to show, in the order of the steps."""
    moments = {steps[0]: "start", steps[-1]: "end"}
    if run.collapse is not None:
        peak = run.collapse.peak_step
        moments[min(steps, key=lambda step: abs(step - peak))] = "peak"
    return dict(sorted(moments.items()))


def _aligned(run: RunData, split: str, moments: Mapping[int, str]) -> list[TaskSamples]:
    first: dict[tuple[str, int], Mapping[str, Any]] = {}
    for step in moments:
        for sample in run.run.iterate_samples(step, split):
            kept = {field: sample[field] for field in ("prompt", "completion", "outcome")}
            first.setdefault((sample["task"], step), kept)
    tasks = list(dict.fromkeys(task for task, _ in first))
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


MOST_TOKENS = 600  # shown of one completion
MEASURES = ("polarity", "entropy", "surprisal")
VALUES = {"entropy": "entropy", "reward": "reward", "length": "length", "gradient norm": "grad_norm"}


def browser_data(runs: Sequence[RunData], size: int) -> dict[str, Any]:
    """The runs for the page's script, in about `size` bytes of JSON or less, escaped as in the page.

    Samples are spread over the whole run: those of its start, peak, decisions and end first, then those of the steps
    between, by halving, until the run's share of the size is used up.
    """
    shown = [_run(run, size // len(runs)) for run in runs]
    return {"runs": shown, "scales": _scales(shown)}


def _run(run: RunData, size: int) -> dict[str, Any]:
    values = _values(run)
    size -= _size(values)
    tasks: dict[tuple[str, str], int] = {}
    kept: list[dict[str, Any]] = []
    for sample in _most_telling_first(run):
        task = (sample["task"], shortened(sample["prompt"]))
        line = {
            "step": sample["step"],
            "split": sample["split"],
            "task": tasks.get(task, len(tasks)),
            "outcome": sample["outcome"],
            **_completion(sample),
        }
        size -= _size(line) + (0 if task in tasks else _size(task))
        if size < 0:
            break
        tasks.setdefault(task, len(tasks))
        kept.append(line)
    kept.sort(key=lambda line: (line["step"], line["split"], line["task"]))
    return {
        "name": run.name,
        "values": values,
        "tasks": list(tasks),
        "samples": kept,
        "of": sum(run.sample_counts.values()),
    }


def _values(run: RunData) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each curve that the run has, thinned."""
    curves = {name: series(run.steps, field) for name, field in VALUES.items()}
    if run.report is not None:
        curves = {"pass@1": (list(run.report.steps), list(run.report.pass_at_1)), **curves}
    return {name: _thinned(steps, values) for name, (steps, values) in curves.items() if steps}


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    shown = extremes(values)
    return [steps[index] for index in shown], [_brief(values[index]) for index in shown]


def _most_telling_first(run: RunData) -> Iterator[Mapping[str, Any]]:
    steps = sorted({step for step, _ in run.sample_counts})
    marked = [run.collapse.peak_step] if run.collapse else []
    marked += [step for line in run.decisions for step in (line["step"], line.get("to_step")) if isinstance(step, int)]
    first = [step for step in (*steps[:1], *steps[-1:], *marked) if step in steps]
    for step in dict.fromkeys([*first, *_by_halving(steps)]):
        yield from run.run.iterate_samples(step)


def _by_halving(steps: Sequence[int]) -> list[int]:
    """`steps` in an order whose every beginning is spread over all of them (van der Corput's sequence)."""
    bits = max(1, len(steps) - 1).bit_length()
    return [step for _, step in sorted((int(f"{index:0{bits}b}"[::-1], 2), step) for index, step in enumerate(steps))]


def _completion(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The completion token by token if the run recorded that, else as text."""
    view = token_view(sample)
    if view is None:
        return {"text": shortened(sample["completion"])}
    return {"advantage": sample.get("advantage"), "cut": max(0, len(view.text) - MOST_TOKENS), "tokens": _columns(view)}


def _columns(view: TokenView) -> dict[str, Any]:
    columns = {"polarity": view.polarity, "entropy": view.entropy, "surprisal": view.surprisal}
    shown = {name: [_brief(value) for value in values[:MOST_TOKENS]] for name, values in columns.items() if values}
    return {"text": [shortened(piece) for piece in view.text[:MOST_TOKENS]], **shown}


def _scales(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """For each measure, the magnitude that 98 % of all shown tokens stay below, which has the full colour."""
    tokens = [sample["tokens"] for run in runs for sample in run["samples"] if "tokens" in sample]
    sizes = {name: [abs(value) for token in tokens for value in token.get(name, ())] for name in MEASURES}
    return {name: _brief(float(np.quantile(values, 0.98))) or 1.0 for name, values in sizes.items() if values}


def _size(value: Any) -> int:
    return len(htmlsafe_json_dumps(value)) + 2


def _brief(value: float) -> float:
    return float(f"{value:.3g}")
