"""`tokens`: a completion of a run, each token coloured by what learning from it does to the entropy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from entrostat.cli.screen import AsJson, console, refuse_missing_run


class Measure(str, Enum):
    """What a token is coloured by."""

    POLARITY = "polarity"
    SENSITIVITY = "sensitivity"
    SURPRISAL = "surprisal"


def tokens(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    step: Annotated[int | None, typer.Option(help="A step with training samples; the last if left out.")] = None,
    task: Annotated[str | None, typer.Option(help="The task's id; if left out, one with an advantage.")] = None,
    by: Annotated[Measure, typer.Option(help="What the colours show.")] = Measure.POLARITY,
    as_json: AsJson = False,
) -> None:
    """Show a training sample, each token coloured: orange where it expands the entropy, blue where it contracts it.

    Example: entrostat tokens runs/demo/reinforce --step 40 --by surprisal
    """
    refuse_missing_run(run)
    from entrostat.cli.token_view import render

    samples = _samples(run, step)
    sample = _of_task(samples, task)
    if as_json:
        typer.echo(json.dumps(sample))
        return
    coloured = console.color_system is not None and not console.no_color
    others = [other["task"] for other in samples if other is not sample]
    for part in render(sample, by.value, others, console.width, coloured):
        console.print(part)


def _samples(path: Path, step: int | None) -> list[dict[str, Any]]:
    """The samples of a step that were kept token by token; of the last such step where none is named."""
    from entrostat.report.samples import token_view
    from entrostat.runs import Run, RunError

    run = Run.open(path)
    kept = sorted({at for at, _ in run.sample_counts()})

    def shown(at: int) -> list[dict[str, Any]]:
        return [sample for sample in run.iterate_samples(at) if token_view(sample)]

    for at in reversed(kept) if step is None else (step,):
        if found := shown(at):
            return found
    steps = [at for at in kept if shown(at)]
    if not steps:
        raise RunError(
            f"{path}: no sample is kept token by token; an earlier version or another trainer wrote it: "
            "train again with this one"
        )
    raise RunError(
        f"--step: got {step}, but {path} has tokens of {len(steps)} steps from {steps[0]} to {steps[-1]}; "
        f"choose one, as {min(steps, key=lambda known: abs(known - (step or 0)))}"
    )


def _of_task(samples: Sequence[dict[str, Any]], task: str | None) -> Mapping[str, Any]:
    """The task's sample; without a task the first that has an advantage other than 0, for it moves something."""
    from entrostat.cli.screen import visible
    from entrostat.runs import RunError

    if task is None:
        return next((sample for sample in samples if sample.get("advantage")), samples[0])
    for sample in samples:
        if sample["task"] == task:
            return sample
    names = ", ".join(visible(str(sample["task"])) for sample in samples)
    raise RunError(f"--task: got {task!r}, but step {samples[0]['step']} has {names}; choose one of these")
