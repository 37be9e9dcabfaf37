"""Progress on any screen: one line that holds whole numbers only; without a terminal a line now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from entrostat.cli.screen import status, visible

QUIET = 2.0  # seconds that a command may take without a word
APART = 60.0  # the most seconds between two lines where there is no terminal
BAR, SHORT_BAR = 30, 8  # characters

Tell = Callable[..., None]
"""tell(done, total, figures=...): figures are words and numbers that are shown where there is space for them."""


def fitted(name: str, done: int, total: int, left: str, figures: Sequence[str], unit: str, width: int) -> Text:
    """One line of at most `width` characters: the step, the time left, the name, a bar, figures, as far as they fit.

    What does not fit is left out whole: no number is cut.
    """
    share = min(max(done / total, 0.0), 1.0) if total else 0.0
    parts = {"count": f"{unit} {done}/{total}".strip(), "left": left}
    free = width - sum(len(part) + 2 for part in parts.values() if part) + 2
    if name and (size := cell_len(name) + 2) <= free:
        parts["name"] = name
        free -= size
    if free >= SHORT_BAR + 2:
        free -= SHORT_BAR + 2
        parts["bar"] = ""
    kept = []
    for figure in figures:
        if len(figure) + 2 > free:
            break
        kept.append(figure)
        free -= len(figure) + 2
    line = Text(no_wrap=True, end="")
    if "name" in parts:
        line.append(parts["name"] + "  ")
    if "bar" in parts:
        size = min(SHORT_BAR + free, BAR)
        filled = int(size * share)
        line.append("━" * filled, style="green").append("━" * (size - filled), style="bright_black").append("  ")
    return line.append("  ".join([*filter(None, (parts["count"], parts["left"])), *kept]))


@contextmanager
def progress(name: str, unit: str = "") -> Iterator[Tell]:
    """Show how far a loop is, from its first word on.

    In a terminal one line that follows its width; elsewhere a line at each tenth of the way, but no two within two
    seconds of each other, and one per minute.
    """
    from rich.progress import Progress, TextColumn

    name = visible(name)
    with Progress(
        _line_of(TextColumn, name, unit), console=status, disable=not status.is_terminal, transient=False
    ) as shown:
        bar = shown.add_task(name, total=None, figures=())
        began = told = time.monotonic()
        first: int | None = None
        tenth = -1

        def tell(done: int, total: int, figures: Sequence[str] = ()) -> None:
            nonlocal first, told, tenth
            if first is None:
                first = done  # what an earlier process did says nothing about this one's speed
                shown.reset(bar, total=total, completed=done, figures=())
            shown.update(bar, completed=done, total=total, figures=tuple(figures))
            now = time.monotonic()
            crossed = 10 * done // max(total, 1) > tenth
            if status.is_terminal or not ((crossed and now - told >= QUIET) or now - told >= APART):
                return
            told, tenth = now, 10 * done // max(total, 1)
            left = (now - began) * (total - done) / (done - first) if done > first else None
            line = fitted(name, done, total, _left(left), figures, unit, 10_000).plain.replace("━" * BAR + "  ", "")
            status.print(line, markup=False, highlight=False, soft_wrap=True)

        yield tell


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is being done once it has taken two seconds."""
    spinner = status.status(visible(what))

    def speak() -> None:
        if status.is_terminal:
            spinner.start()
        else:
            status.print(visible(what), markup=False, highlight=False, soft_wrap=True)

    timer = threading.Timer(QUIET, speak)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        spinner.stop()


def _line_of(base: Any, name: str, unit: str) -> Any:
    """A column with the whole line of a task, as `fitted` makes it for the terminal's present width.

    base: rich's column, whose module takes as long to import as all of an error.
    """

    class Line(base):  # type: ignore[misc]
        def render(self, task: Any) -> Text:
            if task.total is None:
                return Text(name)
            left = "" if task.finished else _left(task.time_remaining)
            width, figures = status.width - 1, task.fields["figures"]
            return fitted(name, int(task.completed), int(task.total), left, figures, unit, width)

    return Line("")


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "-:-- left"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} left" if hours else f"{minutes}:{rest:02d} left"
