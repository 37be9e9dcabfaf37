"""What the commands share: the consoles, cells of a table, options, and the one place that catches errors."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from entrostat.errors import EntrostatError

console = Console()
status = Console(stderr=True)  # what comes and goes: standard output holds results alone

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, as in update.learning_rate=1e-4."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for a script to read.")]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)


def print_table(table: Any) -> None:
    """Print a rich table; where its columns do not fit, each row as lines of `heading value`, so that none is cut."""
    from rich.measure import Measurement
    from rich.text import Text

    wanted = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if wanted <= console.width:
        console.print(table)
        return
    headings = [Text.from_markup(str(column.header)).plain for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        line = ""
        for heading, value in zip(headings, row, strict=True):
            part = f"{heading} {Text.from_markup(str(value)).plain}".strip()
            if line and len(line) + 2 + len(part) > console.width:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
                line = "  " + part
            else:
                line = f"{line}  {part}" if line else part
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if table.caption:
        console.print(str(table.caption), markup=False, highlight=False)


def note_inert_control(recipe: Any) -> None:
    """Tell where the clip rule of a recipe can do nothing, and why."""
    if reason := recipe.inert_control():
        status.print(f"note: {recipe.name}: {reason}", style="yellow", markup=False)


def refuse_missing(file: Path, remedy: str) -> None:
    """EntrostatError for a file that is not there, before anything heavy is imported to read it."""
    if not file.exists():
        raise EntrostatError(f"{file}: no such file; {remedy}")


def refuse_missing_model(model: str) -> None:
    """EntrostatError for a path without a model, as `refuse_missing`; of `RUN@peak` it is the run's folder."""
    run, at, kept = model.rpartition("@")
    if at and kept in ("peak", "end", "start"):
        refuse_missing_run(Path(run).expanduser())
    elif model.startswith((".", "/", "~")):  # any other name may be one in a hub
        refuse_missing(Path(model), "give a model folder, a hub id, RUN@peak or embedded")


def refuse_missing_run(folder: Path) -> None:
    """EntrostatError for a folder that is not a run's, as `refuse_missing`."""
    if not (folder / "run.json").exists():
        raise EntrostatError(f"{folder}: not a run folder (no run.json in it); name the folder given as --out")


def visible(text: str) -> str:
    """`text` with printable characters only: a newline as an arrow, any other as a control picture or its number.

    What a terminal would obey instead of show (escapes, the C1 controls, direction overrides) is shown instead.
    """
    return "".join(character if character.isprintable() else _picture(character) for character in text)


def _picture(character: str) -> str:
    number = ord(character)
    if character in "\n\t":
        return "↵" if character == "\n" else "⇥"
    return chr(0x2400 + number) if number < 0x20 else f"\\u{{{number:x}}}"


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers send it before they kill."""


def _terminate(*_: Any) -> NoReturn:
    raise Terminated


class Shown(TyperCommand):
    """A command whose help has its example on lines of its own, as it can be copied."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the help, the example unwrapped and last."""
        text, _, example = inspect.cleandoc(self.help or "").partition("Example: ")
        whole, self.help = self.help, text
        super().format_help_text(ctx, formatter)
        self.help = whole
        if example:
            formatter.write("\n  Example:\n\n" + "".join(f"    {line}\n" for line in example.splitlines()))


class Commands(TyperGroup):
    """The commands; an error that a user can fix ends in plain lines and exit status 1."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with the whole first sentence of its help, wrapped and never cut."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(command.help or "")) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for; SIGTERM ends it as an interrupt does."""
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            ended = "terminated" if isinstance(interrupt, Terminated) else "interrupted"
            typer.echo(f"{ended}; the same command again resumes the run", err=True)
            raise typer.Exit(143 if ended == "terminated" else 130) from None
        except EntrostatError as error:
            _end(str(error).splitlines(), error)
        except BrokenPipeError:  # the reader of our output closed the pipe: not our error
            raise
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            _end([f"{named}{error.strerror or error}; free space, fix its permissions or choose another path"], error)
        finally:
            signal.signal(signal.SIGTERM, before)


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def _end(lines: Iterable[str], error: Exception) -> NoReturn:
    for line in lines:
        typer.echo(f"error: {visible(line)}", err=True)
    raise typer.Exit(1) from error
