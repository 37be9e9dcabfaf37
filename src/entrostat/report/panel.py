"""Panels, which are figures of one run with a title and a caption, and the drawings in the page made from them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from entrostat.errors import EntrostatError
from entrostat.report.reading import RunData
from entrostat.report.style import frame, place_end_labels, report_style, svg

STRETCHES = 240  # a panel is about as many points wide


class NotMeasuredError(EntrostatError):
    """The run lacks the data of a figure; the message is the note shown in its place."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure of the report. draw raises NotMeasuredError if the run lacks its data."""

    title: str
    caption: str
    draw: Callable[[RunData], Figure]


def draw_panel(panel: Panel, run: RunData) -> Figure:
    """The panel's figure for `run`. NotMeasuredError: the run lacks its data."""
    with report_style():
        figure = panel.draw(run)
        for axes in figure.axes:
            axes.set_xlim(0, run.last_step)
    return figure


def on_one_scale(figures: Sequence[Figure]) -> None:
    """Give figures of one panel common limits, so that they can be compared by eye."""
    for row in zip(*(figure.axes for figure in figures), strict=True):
        right = max(axes.get_xlim()[1] for axes in row)
        low, high = min(axes.get_ylim()[0] for axes in row), max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_xlim(0, right)
            axes.set_ylim(low, high)
            place_end_labels(axes)


def curve(axes: Axes, steps: Sequence[int], values: Sequence[float], label: str, **look: Any) -> None:
    """A line over steps, thinned if it has more points than the panel can show. label: its name in the data."""
    if steps:
        shown = extremes(values)
        axes.plot(np.asarray(steps)[shown], np.asarray(values)[shown], label=label, **look)


def drawn_data(figure: Figure) -> dict[str, dict[int, float]]:
    """What a figure shows: the value of each named curve by step."""
    lines = [line for axes in figure.axes for line in axes.lines if not str(line.get_label()).startswith("_")]
    return {
        str(line.get_label()): {
            int(step): float(f"{value:.4g}")
            for step, value in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
        }
        for line in lines
    }


def as_csv(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Curves as CSV: a column of steps, and one column for each curve, empty where it has no value."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", *curves])
    for step in sorted({step for values in curves.values() for step in values}):
        rows.writerow([step, *(values.get(step, "") for values in curves.values())])
    return text.getvalue()


def in_words(title: str, curves: Mapping[str, Mapping[int, float]]) -> str:
    """What a figure shows, for readers who do not see it: where each curve begins and ends, and its extremes."""
    sentences = [
        f"{name}: {values[min(values)]:.3g} at step {min(values)}, {values[max(values)]:.3g} at step {max(values)}, "
        f"between {min(values.values()):.3g} and {max(values.values()):.3g}"
        for name, values in curves.items()
        if values
    ]
    return f"{title}. {'; '.join(sentences)}."


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure in the page: an SVG element, or the note in its place.

    data: what it shows, as CSV. words: the same for readers who do not see it.
    frame: the position of its panels, for the page's script: left, right, top and bottom as shares of the element, with
    steps 0 ... last from left to right. anchor: the figure's name in the page, for links; empty for none.
    """

    title: str
    caption: str
    image: str | None
    note: str | None
    data: str = ""
    words: str = ""
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
    """Each panel for two runs. If one run lacks its data, a note is shown beside the other's figure."""
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
    curves = drawn_data(figure)
    words = in_words(title, curves)
    return Drawing(title, caption, svg(figure, salt), None, as_csv(curves), words, sides, last, f"figure-{salt}")


def extremes(*curves: Sequence[float], stretches: int = STRETCHES) -> NDArray[np.intp]:
    """Indices to draw, ascending: in each of equal stretches, the places where each curve is lowest and highest, and
    both ends.

    The curves have one length. A run with at most two points per stretch keeps all of them.
    """
    length = len(curves[0])
    if length <= 2 * stretches:
        return np.arange(length)
    kept = [0, length - 1]
    for curve in curves:
        for stretch in np.array_split(np.arange(length), stretches):
            values = np.asarray(curve)[stretch]
            kept += [stretch[values.argmin()], stretch[values.argmax()]]
    return np.unique(kept)


def summed(counts: NDArray[np.float64], stretches: int = STRETCHES) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Columns of `counts` (curves, length) added up in equal stretches, and the index at which each ends."""
    length = counts.shape[1]
    if length <= 2 * stretches:
        return np.arange(length), counts
    edges = np.linspace(0, length, stretches, endpoint=False, dtype=np.intp)
    return np.append(edges[1:], length) - 1, np.add.reduceat(counts, edges, axis=1)
