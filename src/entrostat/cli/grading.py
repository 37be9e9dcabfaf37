"""`grade` and `eval`: samples of code, judged in isolation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from entrostat.cli.screen import AsJson, cell, console, counting, refuse_missing


def grade(
    samples: Annotated[Path, typer.Argument(help='JSON lines with "task_id" and "solution" or "completion".')],
    tasks: Annotated[str, typer.Option(help="Task set: humaneval, mbpp, apps, livecodebench, jsonl or listcraft.")],
    data: Annotated[Path | None, typer.Option(help="The set's file, where no package carries it.")] = None,
    k: Annotated[str, typer.Option(help="The k of pass@k, separated by commas.")] = "1",
    workers: Annotated[int, typer.Option(help="Gradings at a time.", min=1)] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds a sample may take.", min=1e-3)] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Run samples of code in isolation and judge them; the same command again goes on where it stopped.

    Example: entrostat grade samples.jsonl --tasks humaneval --k 1,10
    """
    ks = _whole_numbers(k)
    refuse_missing(samples, "give the path of a file of samples")
    _grade(samples, _task_set(tasks, data), ks, workers, timeout, as_json)


def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, a hub id, or `embedded`.")],
    tasks: Annotated[str, typer.Option(help="Task set: humaneval, mbpp, apps, livecodebench, jsonl or listcraft.")],
    data: Annotated[Path | None, typer.Option(help="The set's file, where no package carries it.")] = None,
    out: Annotated[Path, typer.Option(help="Where samples go; verdicts go beside them.")] = Path("samples.jsonl"),
    n: Annotated[int, typer.Option(help="Samples a task.", min=1)] = 20,
    k: Annotated[str, typer.Option(help="The k of pass@k, separated by commas.")] = "1,10",
    temperature: Annotated[float, typer.Option(help="Sampling temperature, above 0.", min=1e-3)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion in tokens.", min=1)] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Every sample follows from it.")] = 0,
    workers: Annotated[int, typer.Option(help="Gradings at a time.", min=1)] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds a sample may take.", min=1e-3)] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Sample a model on a task set and grade what it wrote; the same command again goes on where it stopped.

    Example: entrostat eval embedded --tasks listcraft --n 8 --k 1,4 --max-new-tokens 48
    """
    ks = _whole_numbers(k)
    if max(ks) > n:
        raise typer.BadParameter(
            f"{k}: pass@{max(ks)} needs at least {max(ks)} samples a task; raise --n or lower it", param_hint="--k"
        )
    if model.startswith((".", "/", "~")):  # any other name may be one in a hub
        refuse_missing(Path(model), "give a model folder, a hub id or embedded")
    chosen = _task_set(tasks, data)
    from entrostat.engine.generate import generate
    from entrostat.engine.policy import load_policy

    policy = load_policy(model, dtype, device)
    with counting("sampling") as progress:
        generate(
            policy,
            chosen,
            out,
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            progress=progress,
        )
    _grade(out, chosen, ks, workers, timeout, as_json)


def _task_set(name: str, data: Path | None) -> list[Any]:
    if data is not None:
        refuse_missing(data, "give the path of the set's file with --data")
    from entrostat.recipe.task_sets import load_task_set

    return load_task_set(name, data)


def _grade(samples: Path, tasks: list[Any], ks: list[int], workers: int, timeout: float, as_json: bool) -> None:
    """Grade a samples file and print pass@k and pass^k with intervals over the problems."""
    from entrostat.grading import CodeGrader, grade_file
    from entrostat.runs import mean_interval, pass_at_k, pass_hat_k

    with CodeGrader(workers, timeout) as grader, counting("grading") as progress:
        found = grade_file(samples, tasks, grader, progress=progress)
    scores: dict[str, dict[str, float | int | None]] = {}
    for size in ks:
        counts = [(n, c) for n, c in found.counts.values() if n >= size]
        for name, estimator in ((f"pass@{size}", pass_at_k), (f"pass^{size}", pass_hat_k)):
            if counts:
                estimate = mean_interval([estimator(n, c, size) for n, c in counts])
                scores[name] = {
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "problems": estimate.n,
                }
    if as_json:
        answer = {"scores": scores, "outcomes": dict(found.outcomes), "counts": found.counts}
        typer.echo(json.dumps({**answer, "infrastructure_errors": found.infrastructure_errors}))
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="95 % interval over problems (below 10 Student's t, else bootstrap-t)",
        caption_justify="left",
    )
    for heading in ("", "mean", "low", "high", "problems"):
        table.add_column(heading, justify="right")
    for name, score in scores.items():
        table.add_row(name, *(cell(value) for value in score.values()))
    console.print(table)
    console.print("  ".join(f"{outcome} {count}" for outcome, count in found.outcomes.most_common()), markup=False)
    if found.infrastructure_errors:
        console.print(f"{found.infrastructure_errors} samples have no verdict; the same command again grades them")
    console.print(f"verdicts: {found.verdicts}", style="bold", markup=False, soft_wrap=True)


def _whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) >= 1 for part in parts):
        raise typer.BadParameter(
            f"{text!r}: give whole numbers from 1, separated by commas, as in 1,10", param_hint="--k"
        )
    return [int(part) for part in parts]
