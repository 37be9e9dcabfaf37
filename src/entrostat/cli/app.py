"""The command line. Each command reads its arguments, calls the library and shows what came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from entrostat.cli.auditing import audit
from entrostat.cli.chain import chain
from entrostat.cli.diagnosing import diagnose, watch
from entrostat.cli.grading import compare, evaluate, grade
from entrostat.cli.recipes import init, methods, recipe
from entrostat.cli.reporting import export, report
from entrostat.cli.scoring import score
from entrostat.cli.screen import Commands, Shown
from entrostat.cli.tasks import tasks
from entrostat.cli.tokens import tokens
from entrostat.cli.training import demo, train

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from entrostat import __version__

        typer.echo(f"entrostat {__version__}")
        raise typer.Exit


@app.callback()
def entrostat(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Measure the entropy of a policy under training, steer it, and keep the peak when a run starts to fall."""


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "init": init,
    "recipe": recipe,
    "methods": methods,
    "train": train,
    "chain": chain,
    "report": report,
    "export": export,
    "tokens": tokens,
    "score": score,
    "grade": grade,
    "eval": evaluate,
    "audit": audit,
    "compare": compare,
    "diagnose": diagnose,
    "watch": watch,
}
for name, command in COMMANDS.items():
    app.command(name=name, cls=Shown)(command)
app.add_typer(tasks, name="tasks")


def main() -> None:
    """Entry point of the `entrostat` command."""
    app()
