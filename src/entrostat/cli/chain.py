"""`chain`: a study of methods x seeds, each a chain of campaigns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from entrostat.cli.progress import progress, working
from entrostat.cli.screen import AsJson, Overrides, console, note_inert_control, print_table, refuse_missing

SHOWN = {  # columns of the headline table, and headings with which they fit into 80 characters
    **{name: name for name in ("method", "n", "end", "gap", "floor")},
    "collapsed": "fell",
    "of oracle": "oracle",
    "steps": "steps",
    "evaluations": "evals",
}


def chain(
    recipe: Annotated[Path, typer.Argument(help="A study's recipe in YAML.")],
    out: Annotated[Path | None, typer.Option(help="The study's folder; runs/NAME if left out.")] = None,
    workers: Annotated[int, typer.Option(help="Chains at a time, each in a process of its own.", min=1)] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread the chains over a Ray cluster that sees the folder.")
    ] = False,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and what it takes, run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study of methods x seeds, each a chain of campaigns; the same command again resumes what was killed.

    `entrostat init study --out study.yaml` writes a study to begin with.

    Example: entrostat chain study.yaml --workers 2 --set seeds=[0,1]
    """
    refuse_missing(recipe, "give the path of a study's YAML recipe")
    from entrostat.recipe import load_study

    study = load_study(recipe, overrides or ())
    for method in study.methods:
        note_inert_control(study.recipe(method, study.seeds[0], 0))
    if dry_run:
        _show_plan(study, as_json)
        return
    from entrostat.engine.study import run_study
    from entrostat.report.study import build_study_report

    folder = out or Path("runs") / study.name
    with _study_progress(study.name) as progress:
        run_study(study, folder, workers=workers, ray=ray, progress=progress)
    with working(f"drawing the report of {folder}"):
        page = build_study_report(folder)
    _show_results(folder, page, as_json)


def _show_results(folder: Path, page: Path, as_json: bool) -> None:
    from entrostat.report.study import headline

    rows = [row.plain() for row in headline(folder)]
    if as_json:
        typer.echo(json.dumps({"methods": rows, "report": str(page), "results": str(folder / "results.sqlite")}))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for name, heading in SHOWN.items():
        table.add_column(heading, justify="left" if name == "method" else "right", no_wrap=name == "end")
    for row in rows:
        table.add_row(*(escape(str(row[name])) for name in SHOWN))
    print_table(table)
    console.print(f"report: {page}", style="bold", markup=False, soft_wrap=True)


def _show_plan(study: Any, as_json: bool) -> None:
    from entrostat.engine.study import estimate

    rows = [estimate(study, method) for method in study.methods]
    if as_json:
        typer.echo(json.dumps({"study": study.name, "seeds": len(study.seeds), "chains": rows}))
        return
    table = Table(
        box=box.SIMPLE_HEAD, caption="a chain; tokens at the longest completion, memory with AdamW in float32"
    )
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else escape(str(value)) for value in row.values()))
    console.print(f"{study.name}: {len(study.methods)} methods x {len(study.seeds)} seeds", markup=False)
    print_table(table)


@contextmanager
def _study_progress(name: str) -> Iterator[Any]:
    """A listener that shows how far the whole study is."""
    with progress(name, "step") as tell:

        def listen(standing: Any) -> None:
            tell(standing.done, standing.total, [f"{standing.chains_done}/{standing.chains} chains"])

        yield listen
