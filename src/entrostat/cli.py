"""The command line. Each command reads its arguments, calls the library and shows what came back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

app = typer.Typer(
    help="Measure the entropy of a policy under training, steer it, and keep the peak when a run starts to fall.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
console = Console()
status = Console(stderr=True)  # what comes and goes: standard output holds results alone

DEMO = ("reinforce", "early-stop", "grpo-id")
CAPTION = (
    "pass@1 on the report split; peak@: where the select split peaked; floor: the gap that evaluation noise alone "
    "would show; kept: what the campaign hands over; H: entropy in nats a token"
)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, as in update.learning_rate=1e-4."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for a script to read.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the three runs and the report.")] = Path("runs/demo"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the embedded policy three times from one start: a collapse, the same stopped in time, and GRPO under ID.

    Example: entrostat demo --out runs/demo --set seed=1
    """
    from entrostat.recipe import load_recipe

    folder = resources.files("entrostat.assets") / "demo"
    with _plain_errors():
        recipes = [load_recipe(Path(str(folder / f"{name}.yaml")), overrides or ()) for name in DEMO]
        runs = [_train(recipe, out / recipe.name) for recipe in recipes]
        _show(runs, out / "report.html", as_json)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME if left out.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run one campaign of a recipe; the same command again resumes a run that was killed.

    Example: entrostat train recipes/grpo.yaml --out runs/grpo --set seed=3
    """
    from entrostat.recipe import load_recipe

    with _plain_errors():
        loaded = load_recipe(recipe, overrides or ())
        run = _train(loaded, out or Path("runs") / loaded.name)
        _show([run], run / "report.html", as_json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    as_json: AsJson = False,
) -> None:
    """Draw the figures of one or several runs and write them as one page.

    Example: entrostat report runs/demo/reinforce runs/demo/grpo-id --out demo.html
    """
    with _plain_errors():
        _show(runs, out, as_json)


@app.command()
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
    with _plain_errors():
        _grade(samples, _task_set(tasks, data), ks, workers, timeout, as_json)


@app.command(name="eval")
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
    from entrostat.engine.generate import generate
    from entrostat.engine.policy import load_policy

    ks = _whole_numbers(k)
    if max(ks) > n:
        raise typer.BadParameter(
            f"{k}: pass@{max(ks)} needs at least {max(ks)} samples a task; raise --n or lower it", param_hint="--k"
        )
    with _plain_errors():
        chosen = _task_set(tasks, data)
        policy = load_policy(model, dtype, device)
        with _counting("sampling") as progress:
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


def main() -> None:
    """Entry point of the `entrostat` command."""
    app()


def _train(recipe: Any, out: Path) -> Path:
    from transformers.utils import logging

    from entrostat.engine.train import train as train_recipe

    logging.set_verbosity_error()
    if reason := recipe.inert_control():
        status.print(f"note: {reason}", style="yellow", markup=False)
    with _live_status(recipe) as listener:
        train_recipe(recipe, out, listener)
    return out


@contextmanager
def _live_status(recipe: Any) -> Iterator[Any]:
    """A listener that shows one line a run: a bar in a terminal, a line every ten steps elsewhere."""
    total = recipe.campaign.steps
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    times = [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[status]}")]
    shown: dict[str, Any] = {}
    with Progress(*columns, *times, console=status, disable=not status.is_terminal) as progress:
        bar = progress.add_task(f"{recipe.name:<12}", total=total, status="")

        def listen(line: dict[str, Any]) -> None:
            if "split" in line:
                k, value = next(iter(line["pass_at"].items()))
                shown[f"pass@{k} {line['split']}"] = value
            else:
                shown["entropy"] = line["entropy"]
            figures = "  ".join(f"{name} {value:.2f}" for name, value in shown.items() if value is not None)
            progress.update(bar, completed=line["step"], status=figures)
            last_of_step = line.get("split") == "report"
            if not status.is_terminal and last_of_step and line["step"] % 10 == 0:
                status.print(f"{recipe.name:<12} step {line['step']:>4}/{total}  {figures}", markup=False)

        yield listen


def _task_set(name: str, data: Path | None) -> list[Any]:
    from entrostat.recipe.task_sets import load_task_set

    return load_task_set(name, data)


def _grade(samples: Path, tasks: list[Any], ks: list[int], workers: int, timeout: float, as_json: bool) -> None:
    """Grade a samples file and print pass@k and pass^k with intervals over the problems."""
    from entrostat.grading import CodeGrader, grade_file
    from entrostat.runs import bootstrap_mean, pass_at_k, pass_hat_k

    with CodeGrader(workers, timeout) as grader, _counting("grading") as progress:
        found = grade_file(samples, tasks, grader, progress=progress)
    scores: dict[str, dict[str, float | int | None]] = {}
    for size in ks:
        counts = [(n, c) for n, c in found.counts.values() if n >= size]
        for name, estimator in ((f"pass@{size}", pass_at_k), (f"pass^{size}", pass_hat_k)):
            if counts:
                estimate = bootstrap_mean([estimator(n, c, size) for n, c in counts])
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
    table = Table(box=box.SIMPLE_HEAD, caption="95 % bootstrap interval over problems", caption_justify="left")
    for heading in ("", "mean", "low", "high", "problems"):
        table.add_column(heading, justify="right")
    for name, score in scores.items():
        table.add_row(name, *(_cell(value) for value in score.values()))
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


@contextmanager
def _counting(what: str) -> Iterator[Any]:
    """A progress bar for (done, in all)."""
    with Progress(console=status, disable=not status.is_terminal) as progress:
        bar = progress.add_task(what)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _show(runs: list[Path], page: Path, as_json: bool) -> None:
    """Write the report of the runs and print their headline table."""
    from entrostat.report import build_report, overview_figure, read_runs, save_figure, speed, summary_rows

    build_report(runs, page)
    if len(runs) > 1:
        save_figure(overview_figure(read_runs(runs)), page.with_name(f"{page.stem}-overview.png"))
    rows = [asdict(row) for row in summary_rows(runs)]
    if as_json:
        typer.echo(json.dumps({"runs": rows, "report": str(page)}))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=CAPTION, caption_justify="left")
    table.add_column("run", no_wrap=True)
    for heading in ("start", "peak@", "end", "gap", "floor", "kept", "H start", "H end", "steps"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        peak = "-" if row["peak"] is None else f"{row['peak']:.3f}@{row['peak_step']}"
        rest = ("end", "gap", "noise_floor", "handed_over", "entropy_start", "entropy_end", "steps")
        table.add_row(escape(row["run"]), _cell(row["start"]), peak, *(_cell(row[field]) for field in rest))
    console.print(table)
    for run in read_runs(runs):
        console.print(_speed_line(run.name, speed(run)), style="dim", markup=False)
    console.print(f"report: {page}", style="bold", markup=False, soft_wrap=True)


def _speed_line(name: str, found: Any) -> str:
    rates = {"sampled": found.rollout_tokens, "learned": found.update_tokens, "graded": found.gradings}
    units = {"sampled": "tokens/s", "learned": "tokens/s", "graded": "completions/s"}
    parts = [f"{what} {rate:,.0f} {units[what]}" for what, rate in rates.items() if rate]
    shares = [f"{phase} {share:.0%}" for phase, share in found.shares.items()]
    return f"{name}: {', '.join(parts)}; {sum(found.seconds.values()):.0f} s: {', '.join(shares)}"


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn the errors that a user can mend into plain lines and exit status 1."""
    from entrostat.engine.checkpoint import CheckpointError
    from entrostat.engine.policy import PolicyError
    from entrostat.engine.update import TrainingError
    from entrostat.grading import IsolationError, SamplesError, WorkerError
    from entrostat.recipe import RecipeError
    from entrostat.runs import RunError
    from entrostat.tasks import TaskError

    mendable = (
        CheckpointError,
        IsolationError,
        PolicyError,
        RecipeError,
        SamplesError,
        RunError,
        TaskError,
        TrainingError,
        WorkerError,
    )
    try:
        yield
    except mendable as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"error: {named}{error.strerror or error}; free space, mend permissions or choose another path", err=True
        )
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command again resumes the run", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    main()
