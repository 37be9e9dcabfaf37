"""The command line. Each command reads its arguments, calls the library and shows what came back."""

from __future__ import annotations

import typer

from entrostat.cli.auditing import audit
from entrostat.cli.chain import chain
from entrostat.cli.diagnosing import diagnose, watch
from entrostat.cli.exporting import export
from entrostat.cli.grading import compare, evaluate, grade
from entrostat.cli.recipes import init, methods, recipe
from entrostat.cli.reporting import report
from entrostat.cli.scoring import score
from entrostat.cli.screen import Commands
from entrostat.cli.tasks import tasks
from entrostat.cli.tokens import tokens
from entrostat.cli.training import demo, train

app = typer.Typer(
    cls=Commands,
    help="Measure the entropy of a policy under training, steer it, and keep the peak when a run starts to fall.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(init)
app.command()(recipe)
app.command()(methods)
app.command()(train)
app.command()(chain)
app.command()(report)
app.command()(export)
app.command()(tokens)
app.command()(score)
app.command()(grade)
app.command(name="eval")(evaluate)
app.command()(audit)
app.command()(compare)
app.add_typer(tasks, name="tasks")
app.command()(diagnose)
app.command()(watch)


def main() -> None:
    """Entry point of the `entrostat` command."""
    app()
