"""What the commands share: the two consoles, progress, cells of a table, options, and plain errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

console = Console()
status = Console(stderr=True)  # what comes and goes: standard output holds results alone

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, as in update.learning_rate=1e-4."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for a script to read.")]


@contextmanager
def counting(what: str) -> Iterator[Any]:
    """A progress bar for (done, in all)."""
    with Progress(console=status, disable=not status.is_terminal) as progress:
        bar = progress.add_task(what)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


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


def note_inert_control(recipe: Any) -> None:
    """Tell where the clip rule of a recipe can do nothing, and why."""
    if reason := recipe.inert_control():
        status.print(f"note: {recipe.name}: {reason}", style="yellow", markup=False)


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


MENDABLE = (  # module and name of each error, so that none is imported for the sake of another
    ("entrostat.diagnose.reading", "LogError"),
    ("entrostat.engine.checkpoint", "CheckpointError"),
    ("entrostat.engine.policy", "PolicyError"),
    ("entrostat.engine.study", "StudyError"),
    ("entrostat.engine.update", "TrainingError"),
    ("entrostat.grading", "IsolationError"),
    ("entrostat.grading", "SamplesError"),
    ("entrostat.grading", "WorkerError"),
    ("entrostat.integrations.trackers", "TrackerError"),
    ("entrostat.recipe", "RecipeError"),
    ("entrostat.runs", "RunError"),
    ("entrostat.tasks", "TaskError"),
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors that a user can mend into plain lines and exit status 1."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command again resumes the run", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        if isinstance(error, _mendable()):
            lines = str(error).splitlines()
        elif isinstance(error, OSError):
            named = f"{error.filename}: " if error.filename else ""
            lines = [f"{named}{error.strerror or error}; free space, mend permissions or choose another path"]
        else:
            raise
        for line in lines:
            typer.echo(f"error: {visible(line)}", err=True)
        raise typer.Exit(1) from error


def _mendable() -> tuple[type[Exception], ...]:
    """Errors that a user can mend, of the modules that have been imported: another module's cannot have been raised."""
    return tuple(getattr(sys.modules[module], name) for module, name in MENDABLE if module in sys.modules)
