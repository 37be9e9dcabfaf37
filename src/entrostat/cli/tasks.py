"""`tasks`: the schema of task files, and whether their own reference solutions pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entrostat.cli.grading import Atol, Grading, Memory, Output, Packages, Rtol, Timeout, Workers
from entrostat.cli.progress import progress
from entrostat.cli.screen import AsJson, console, refuse_missing

tasks = typer.Typer(
    help="Task files of your own: their schema, and a check of their reference solutions.\n\n"
    "Example: entrostat tasks check tasks.jsonl"
)


@tasks.callback(invoke_without_command=True)
def schema(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a record.")] = False,
) -> None:
    """Task files of your own: their schema, and a check of their reference solutions.

    Example: entrostat tasks check tasks.jsonl
    """
    from entrostat.tasks.own import schema as own_schema

    if show:
        typer.echo(json.dumps(own_schema(), indent=1))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@tasks.command()
def check(
    file: Annotated[Path, typer.Argument(help="The file of tasks.")],
    kind: Annotated[
        str, typer.Option("--set", help="The file's schema: jsonl for your own, or a set's name.")
    ] = "jsonl",
    workers: Workers = 2,
    timeout: Timeout = 3.0,
    packages: Packages = "",
    atol: Atol = None,
    rtol: Rtol = None,
    output: Output = None,
    memory: Memory = 1024,
    as_json: AsJson = False,
) -> None:
    """Run every reference solution and report the tasks that cannot be passed; exit status 1 if there are any.

    Example: entrostat tasks check tasks.jsonl
    """
    from entrostat.recipe.task_sets import load_task_set

    refuse_missing(file, "give the path of a file of tasks")
    how = Grading(workers, timeout, packages, atol, rtol, output, memory)
    found = how.tolerant(load_task_set(kind, file))
    able = [task for task in found if task.reference]
    with how.grader(found) as grader, progress("checking") as tell:
        verdicts = []
        for verdict in grader.stream([(task, task.reference) for task in able]):
            verdicts.append(verdict)
            tell(len(verdicts), len(able))
    failed = {
        task.id: {"outcome": str(verdict.outcome), "detail": verdict.detail}
        for task, verdict in zip(able, verdicts, strict=True)
        if not verdict.passed
    }
    if as_json:
        typer.echo(json.dumps({"tasks": len(found), "checked": len(able), "failed": failed}))
    else:
        for name, verdict in failed.items():
            console.print(f"{name}: {verdict['outcome']}: {verdict['detail']}", markup=False, soft_wrap=True)
        console.print(
            f"{len(found)} tasks read; {len(able) - len(failed)} of {len(able)} reference solutions pass; "
            f"{len(found) - len(able)} tasks have none",
            markup=False,
            soft_wrap=True,
        )
    if failed:
        raise typer.Exit(1)
