"""`grade`, `eval` and `compare`: samples of code, judged in isolation."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from entrostat.cli.progress import progress, working
from entrostat.cli.screen import AsJson, cell, console, print_table, refuse_missing, refuse_missing_model, status

Counts = dict[str, tuple[int, int]]  # task -> samples and those that passed

_LEAST_OUTPUT, _LEAST_DISK = 1 << 20, 16 << 20
_MOST_NAMED = 5

TaskSet = Annotated[
    str,
    typer.Option(help="Task set: humaneval, mbpp, apps, livecodebench, bigcodebench, jsonl, listcraft or module:name."),
]
Data = Annotated[Path | None, typer.Option(help="The set's file, where no package carries it.")]
Workers = Annotated[int, typer.Option(help="Gradings at a time.", min=1)]
Timeout = Annotated[float, typer.Option(help="Seconds a sample may take.", min=1e-3)]
Packages = Annotated[
    str, typer.Option(help="Installed packages that code and assertions may import, separated by commas: numpy,scipy.")
]
Atol = Annotated[
    float | None,
    typer.Option(help="Numbers with a fraction may differ by atol + rtol * |expected|. Default: the task's.", min=0.0),
]
Rtol = Annotated[float | None, typer.Option(help="See --atol.", min=0.0)]
Output = Annotated[
    int | None,
    typer.Option(help="Bytes of one answer. Default: 1 MiB, or twice the set's largest answer.", min=1024, max=1 << 30),
]
Memory = Annotated[int, typer.Option(help="MiB of address space of one grading.", min=128)]


@dataclasses.dataclass(frozen=True)
class Grading:
    """How samples are graded."""

    workers: int = 2
    timeout: float = 3.0
    packages: str = ""
    atol: float | None = None
    rtol: float | None = None
    output: int | None = None
    memory: int = 1024

    def grader(self, tasks: list[Any]) -> Any:
        """A CodeGrader whose limits are high enough for what the tasks themselves expect."""
        from entrostat.grading import CodeGrader
        from entrostat.grading.judging import largest_of

        given, answer = largest_of(tasks)
        output = self.output or min(max(_LEAST_OUTPUT, 2 * answer), 1 << 30)
        names = [name.strip() for name in self.packages.split(",") if name.strip()]
        disk = min(max(_LEAST_DISK, given + 2 * output), 1 << 30)
        try:
            return CodeGrader(self.workers, self.timeout, self.memory << 20, output=output, disk=disk, packages=names)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    def tolerant(self, tasks: list[Any]) -> list[Any]:
        """The tasks with the tolerances asked for, in place of their own."""
        wanted = {name: value for name in ("atol", "rtol") if (value := getattr(self, name)) is not None}
        if not wanted:
            return tasks
        able = [task for task in tasks if hasattr(task, "atol")]
        if not able:
            raise typer.BadParameter("these tasks are scripts of assertions, which compare by themselves; leave it out",
                                     param_hint="--atol, --rtol")  # fmt: skip
        if len(able) < len(tasks):
            status.print(f"note: {len(tasks) - len(able)} tasks are scripts of assertions, which no tolerance changes")
        return [dataclasses.replace(task, **wanted) if hasattr(task, "atol") else task for task in tasks]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a model is sampled."""

    samples: int
    max_new_tokens: int
    temperature: float
    device: str
    dtype: str
    seed: int

    def draw(self, model: str, tasks: list[Any], out: Path) -> None:
        """Write the samples of a model to a file, or those that it lacks."""
        from entrostat.engine.completions import generate
        from entrostat.engine.policy import load_policy
        from entrostat.engine.rollout import Sampling

        with working(f"loading {model}"):
            policy = load_policy(model, self.dtype, self.device)
        sampling = Sampling(self.samples, self.max_new_tokens, self.temperature, batch_rows=256)
        with progress("sampling") as tell:
            generate(policy, tasks, out, sampling, self.seed, progress=tell)


def grade(
    samples: Annotated[Path, typer.Argument(help='JSON records with "task_id" and "solution" or "completion".')],
    tasks: TaskSet,
    data: Data = None,
    k: Annotated[str, typer.Option(help="The k of pass@k, separated by commas.")] = "1",
    workers: Workers = 2,
    timeout: Timeout = 3.0,
    packages: Packages = "",
    atol: Atol = None,
    rtol: Rtol = None,
    output: Output = None,
    memory: Memory = 1024,
    as_json: AsJson = False,
) -> None:
    """Run samples of code in isolation and judge them; the same command again resumes where it stopped.

    Example: entrostat grade samples.jsonl --tasks humaneval --k 1,10
    """
    refuse_missing(samples, "give the path of a file of samples")
    how = Grading(workers, timeout, packages, atol, rtol, output, memory)
    _grade(samples, how.tolerant(_task_set(tasks, data)), _whole_numbers(k), how, as_json)


def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, a hub id, RUN@peak, or `embedded`.")],
    tasks: TaskSet,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Where samples go; verdicts go beside them.")] = Path("samples.jsonl"),
    n: Annotated[int | None, typer.Option(help="Samples per task. Default: 20, or 1 at temperature 0.", min=1)] = None,
    k: Annotated[str | None, typer.Option(help="The k of pass@k. Default: 1,10, or 1 at temperature 0.")] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy decoding.", min=0.0)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion in tokens.", min=1)] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Every sample follows from it.")] = 0,
    workers: Workers = 2,
    timeout: Timeout = 3.0,
    packages: Packages = "",
    atol: Atol = None,
    rtol: Rtol = None,
    output: Output = None,
    memory: Memory = 1024,
    as_json: AsJson = False,
) -> None:
    """Sample a model on a task set and grade what it wrote; the same command again resumes where it stopped.

    Example: entrostat eval embedded --tasks listcraft --n 8 --k 1,4 --max-new-tokens 48
    """
    samples = n or (20 if temperature else 1)
    if temperature == 0 and samples > 1:
        raise typer.BadParameter(
            f"{n}: temperature 0 gives one answer, however often it is asked; give 1", param_hint="--n"
        )
    ks = _whole_numbers(k or ("1,10" if temperature else "1"))
    if max(ks) > samples:
        raise typer.BadParameter(
            f"{k or '1,10'}: pass@{max(ks)} needs at least {max(ks)} samples per task; raise --n or lower it",
            param_hint="--k",
        )
    refuse_missing_model(model)
    how = Grading(workers, timeout, packages, atol, rtol, output, memory)
    chosen = how.tolerant(_task_set(tasks, data))
    Drawing(samples, max_new_tokens, temperature, device, dtype, seed).draw(model, chosen, out)
    _grade(out, chosen, ks, how, as_json)


def compare(
    first: Annotated[str, typer.Argument(help="A file of verdicts or a model: what the others are compared with.")],
    others: Annotated[list[str], typer.Argument(help="Files of verdicts or models.")],
    tasks: Annotated[str | None, typer.Option(help="The task set on which models are sampled.")] = None,
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder for models' samples and verdicts.")] = Path("comparison"),
    n: Annotated[int, typer.Option(help="Samples of a model per task.", min=1)] = 20,
    k: Annotated[int, typer.Option(help="The k of pass@k.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 takes --n 1.", min=0.0)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion in tokens.", min=1)] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Every sample follows from it.")] = 0,
    workers: Workers = 2,
    timeout: Timeout = 3.0,
    packages: Packages = "",
    as_json: AsJson = False,
) -> None:
    """Compare checkpoints, or files of verdicts, by pass@k: paired by task, with intervals.

    Example: entrostat compare before.verdicts.jsonl after.verdicts.jsonl
    """
    from entrostat.grading import grade_file, verdict_counts

    how, drawing = Grading(workers, timeout, packages), Drawing(n, max_new_tokens, temperature, device, dtype, seed)
    chosen: list[Any] = []
    found: dict[str, Counts] = {}
    for name in (first, *others):
        if Path(name).is_file():
            found[name] = verdict_counts(name)
            continue
        refuse_missing_model(name)
        if tasks is None:
            raise typer.BadParameter(f"{name} is not a file of verdicts; to sample it as a model, give --tasks")
        chosen = chosen or _task_set(tasks, data)
        file = out / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.')}.jsonl"
        drawing.draw(name, chosen, file)
        with how.grader(chosen) as grader, progress(f"grading {name}") as tell:
            found[name] = grade_file(file, chosen, grader, progress=tell).counts
    if len(found) < 1 + len(others):
        raise typer.BadParameter("the same file or model is named twice; name each once")
    usable, notes = _comparable(found, k)
    rows, note = _differences(found, first, usable, k)
    notes.insert(0, note)
    if as_json:
        typer.echo(json.dumps({"baseline": first, "tasks": len(usable), "rows": rows, "notes": notes}))
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"difference to {first}, paired over {len(usable)} tasks; 95 % interval, not corrected; "
        "p: paired t, Holm-corrected",
        caption_justify="left",
    )
    for heading in rows[0]:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        tiny = row["p"] is not None and row["p"] < 0.001
        table.add_row(*("< .001" if tiny and key == "p" else cell(value) for key, value in row.items()))
    _show(table, notes)


def _comparable(found: dict[str, Counts], k: int) -> tuple[list[str], list[str]]:
    """The tasks with at least k samples in all of `found`, and notes on those that are left out."""
    from entrostat.runs import require_samples

    shared = [task for task in next(iter(found.values())) if all(task in counts for counts in found.values())]
    if not shared:
        raise typer.BadParameter("no task is in all of them; compare verdicts on one task set")
    for counts in found.values():
        require_samples({task: counts[task][0] for task in shared}, [k])
    usable = [task for task in shared if all(counts[task][0] >= k for counts in found.values())]
    notes = []
    if left_out := sorted(set().union(*found.values()) - set(shared)):
        notes.append(f"{len(left_out)} tasks are not in all of them and are left out: {_named(left_out)}")
    if few := [task for task in shared if task not in usable]:
        notes.append(f"{len(few)} tasks have fewer than {k} samples and are left out: {_named(few)}")
    return usable, notes


def _differences(found: dict[str, Counts], first: str, tasks: list[str], k: int) -> tuple[list[dict[str, Any]], str]:
    """A row for each of `found`, with its difference to the first, and a note on the intervals."""
    from entrostat.runs import pass_at_k, planned_contrasts

    rates = {name: [pass_at_k(*counts[task], k) for task in tasks] for name, counts in found.items()}
    contrasts = planned_contrasts({name: (rates[name], rates[first]) for name in rates if name != first})
    rows = []
    for name, values in rates.items():
        contrast = contrasts.get(name)
        rows.append(
            {
                "name": name,
                f"pass@{k}": sum(values) / len(values),
                "difference": contrast and contrast.difference.mean,
                "low": contrast and contrast.difference.low,
                "high": contrast and contrast.difference.high,
                "p": contrast and contrast.p_holm,
            }
        )
    return rows, next(iter(contrasts.values())).difference.note


def _task_set(name: str, data: Path | None) -> list[Any]:
    if data is not None:
        refuse_missing(data, "give the path of the set's file with --data")
    from entrostat.recipe.task_sets import load_task_set

    return load_task_set(name, data)


def _grade(samples: Path, tasks: list[Any], ks: list[int], how: Grading, as_json: bool) -> None:
    """Grade a samples file and print pass@k and pass^k with intervals over the tasks."""
    from entrostat.grading import grade_file, sample_counts
    from entrostat.runs import pass_scores, require_samples

    drawn = sample_counts(samples, tasks)
    require_samples(drawn, ks)
    with how.grader(tasks) as grader, progress("grading") as tell:
        found = grade_file(samples, tasks, grader, progress=tell)
    scores = pass_scores(found.counts, ks) if found.counts else []
    notes = [score.warning for score in scores if score.warning]
    sizes = {n for n in drawn.values() if n}
    if len(sizes) > 1:
        notes.append(f"tasks have {min(sizes)} to {max(sizes)} samples: their pass rates are not equally certain")
    if found.without_samples:
        notes.append(
            f"{len(found.without_samples)} of {len(tasks)} tasks have no samples and are in no score: "
            f"{_named(found.without_samples)}"
        )
    for task, reason in found.unfit.items():
        notes.append(f"task {task} cannot be graded, whatever the code: {reason}{_remedy(reason)}")
    if found.infrastructure_errors:
        notes.append(f"{found.infrastructure_errors} samples have no verdict; the same command again grades them")
    if scores:
        notes.append(scores[0].estimate.note)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "scores": {
                        score.name: {
                            "mean": score.estimate.mean,
                            "low": score.estimate.low,
                            "high": score.estimate.high,
                            "problems": score.estimate.n,
                            "of": len(tasks),
                        }
                        for score in scores
                    },
                    "outcomes": dict(found.outcomes),
                    "counts": found.counts,
                    "infrastructure_errors": found.infrastructure_errors,
                    "unfit_tasks": found.unfit,
                    "tasks_without_samples": found.without_samples,
                    "notes": notes,
                }
            )
        )
    else:
        table = Table(box=box.SIMPLE_HEAD, caption="95 % interval over tasks", caption_justify="left")
        for heading in ("", "mean", "low", "high", "tasks"):
            table.add_column(heading, justify="right")
        for score in scores:
            over = str(score.estimate.n) if score.estimate.n == len(tasks) else f"{score.estimate.n} of {len(tasks)}"
            table.add_row(score.name, *map(cell, (score.estimate.mean, score.estimate.low, score.estimate.high)), over)
        console.print("  ".join(f"{outcome} {count}" for outcome, count in found.outcomes.most_common()), markup=False)
        _show(table, notes)
        console.print(f"verdicts: {found.verdicts}", style="bold", markup=False, soft_wrap=True)
    if not found.counts:
        raise typer.Exit(1)


def _show(table: Table, notes: list[str]) -> None:
    print_table(table)
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _named(tasks: Any) -> str:
    """The first few ids, and how many more there are."""
    more = f" and {len(tasks) - _MOST_NAMED} more" if len(tasks) > _MOST_NAMED else ""
    return ", ".join(tasks[:_MOST_NAMED]) + more


def _remedy(reason: str) -> str:
    """How a package that is not there can be had."""
    missing = re.search(r"No module named '(\w+)", reason)
    return f"; give --packages {missing[1]} (and install it)" if missing else ""


def _whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) >= 1 for part in parts):
        raise typer.BadParameter(
            f"{text!r}: give whole numbers from 1, separated by commas, as in 1,10", param_hint="--k"
        )
    return [int(part) for part in parts]
