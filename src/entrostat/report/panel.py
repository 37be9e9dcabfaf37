"""What a panel is: a figure of one run with a title and a caption, alone or on one scale with another run's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entrostat.errors import EntrostatError
from entrostat.report.reading import RunData
from entrostat.report.style import house_style, place_end_labels
from entrostat.report.thinning import extremes


class NotMeasuredError(EntrostatError):
    """The run lacks what a figure is drawn from; the message is the note that stands in its place."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure of the report. draw raises NotMeasuredError where the run lacks what it needs."""

    title: str
    caption: str
    draw: Callable[[RunData], Figure]


def draw_panel(panel: Panel, run: RunData) -> Figure:
    """The panel's figure for `run`. NotMeasuredError: the run lacks what it is drawn from."""
    with house_style():
        figure = panel.draw(run)
        for axes in figure.axes:
            axes.set_xlim(0, run.last_step)
    return figure


def on_one_scale(figures: Sequence[Figure]) -> None:
    """Give figures of one panel the limits that hold all of them, so that they compare by eye."""
    for row in zip(*(figure.axes for figure in figures), strict=True):
        right = max(axes.get_xlim()[1] for axes in row)
        low, high = min(axes.get_ylim()[0] for axes in row), max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_xlim(0, right)
            axes.set_ylim(low, high)
            place_end_labels(axes)


def curve(axes: Axes, steps: Sequence[int], values: Sequence[float], **look: Any) -> None:
    """A line over steps, thinned where it has more points than the panel can show."""
    if steps:
        shown = extremes(values)
        axes.plot(np.asarray(steps)[shown], np.asarray(values)[shown], **look)
