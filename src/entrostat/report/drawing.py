"""Figures as they stand in the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from entrostat.report.panel import NotMeasuredError, Panel, draw_panel, on_one_scale
from entrostat.report.reading import RunData
from entrostat.report.style import frame, svg


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure in the page: an SVG element, or the note in its place.

    frame: where its panels stand, for the page's script: left, right, top and bottom as shares of the element, with
    steps 0 ... last from left to right. anchor: the figure's name in the page, for links; empty for none.
    """

    title: str
    caption: str
    image: str | None
    note: str | None
    frame: tuple[float, ...] = ()
    last: float = 1.0
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One panel of two runs, side by side on one scale."""

    title: str
    caption: str
    drawings: tuple[Drawing, Drawing]


def draw(title: str, caption: str, make: Callable[[], Figure], salt: str) -> Drawing:
    """The drawing of the figure that `make` returns; salt: as in `svg`, and the figure's name in the page."""
    try:
        figure = make()
    except NotMeasuredError as reason:
        return Drawing(title, caption, None, str(reason))
    return _placed(title, caption, figure, salt)


def draw_pairs(panels: Sequence[Panel], runs: Sequence[RunData]) -> list[Pair]:
    """Each panel for two runs. Where one run lacks what it is drawn from, its note stands beside the other's figure."""
    pairs = []
    for number, panel in enumerate(panels):
        figures = [_figure_or_note(panel, run) for run in runs]
        on_one_scale([figure for figure in figures if isinstance(figure, Figure)])
        first, second = (
            Drawing(run.name, "", None, figure)
            if isinstance(figure, str)
            else _placed(run.name, "", figure, f"pair-{side}-{number}")
            for side, (run, figure) in enumerate(zip(runs, figures, strict=True))
        )
        pairs.append(Pair(panel.title, panel.caption, (first, second)))
    return pairs


def _figure_or_note(panel: Panel, run: RunData) -> Figure | str:
    try:
        return draw_panel(panel, run)
    except NotMeasuredError as reason:
        return str(reason)


def _placed(title: str, caption: str, figure: Figure, salt: str) -> Drawing:
    _, last = figure.axes[0].get_xlim()
    sides = tuple(round(side, 4) for side in frame(figure))
    return Drawing(title, caption, svg(figure, salt), None, sides, last, f"figure-{salt}")
