"""The style of figures: one palette for light and dark, plain axes, labels at the ends of lines.

Colours are those of Okabe and Ito, distinct for every kind of colour vision. A figure is drawn in the light colours;
in a page each of them becomes a CSS variable, so that the same drawing follows the reader's light or dark setting.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

# name: (light, dark)
PALETTE = {
    "ink": ("#1f2329", "#e6e8eb"),
    "muted": ("#6a7079", "#9aa1ab"),
    "grid": ("#e4e6ea", "#33383f"),
    "surface": ("#ffffff", "#16191d"),
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#d55e00", "#f58a3c"),
    "green": ("#00906a", "#2fc79b"),
    "purple": ("#a4468c", "#e08cc5"),
    "amber": ("#b28600", "#e6c34a"),
    "steel": ("#5b7f95", "#8fb3c9"),
    "brown": ("#7a5230", "#c69a72"),
    "rose": ("#c2405b", "#f08aa0"),
    "slate": ("#8b929c", "#727983"),
}
INK, MUTED, GRID, SURFACE = (PALETTE[name][0] for name in ("ink", "muted", "grid", "surface"))
BLUE, ORANGE, GREEN, PURPLE, AMBER = (PALETTE[name][0] for name in ("blue", "orange", "green", "purple", "amber"))
STEEL, BROWN, ROSE, SLATE = (PALETTE[name][0] for name in ("steel", "brown", "rose", "slate"))
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, STEEL, ROSE, BROWN)

SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": SURFACE,
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "entrostat",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.color": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
}

# inches
PANEL_WIDTH, LEFT_MARGIN, TOP_MARGIN, BOTTOM_MARGIN = 2.7, 0.55, 0.24, 0.44

# least distance of two end labels, in points
LABEL_GAP = 11.0
LABEL_LENGTH = 28
RIGHT_END = ("axes fraction", "data")  # the coordinates of an end label


@contextmanager
def report_style() -> Iterator[None]:
    """Figures made in this block have the report's style."""
    with mpl.rc_context(SETTINGS):
        yield


def new_figure(rows: int = 1, columns: int = 1, height: float = 2.5, label_width: float = 1.2) -> Figure:
    """A figure of empty panels over steps, listed row by row in its `axes`.

    height: of the whole figure, inches. label_width: inches kept free to the right of each panel for `label_ends`.
    """
    pitch = LEFT_MARGIN + PANEL_WIDTH + label_width
    figure = Figure(figsize=(columns * pitch, height))
    for axes in figure.subplots(rows, columns, squeeze=False, sharex=rows > 1).flat:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5 if rows == 1 else 3, steps=(1, 2, 5, 10)))
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("step")
    figure.subplots_adjust(
        left=LEFT_MARGIN / (columns * pitch),
        right=1 - label_width / (columns * pitch),
        top=1 - TOP_MARGIN / height,
        bottom=BOTTOM_MARGIN / height,
        wspace=(LEFT_MARGIN + label_width) / PANEL_WIDTH,
        hspace=0.25,
    )
    return figure


def label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (y, text, colour) to the right of the panel at each y, moved apart if they would overlap.

    Call it after everything is drawn: it reads the panel's limits.
    """
    for y, text, colour in sorted(labels):
        axes.annotate(
            short(text),
            (1.0, y),
            xycoords=RIGHT_END,
            xytext=(5, 0),
            textcoords="offset points",
            va="center_baseline",
            color=colour,
            annotation_clip=False,
        )
    place_end_labels(axes)


def place_end_labels(axes: Axes) -> None:
    """Keep the labels of `label_ends` apart under the panel's present limits."""
    labels = [text for text in axes.texts if isinstance(text, Annotation) and text.xycoords == RIGHT_END]
    height = axes.get_window_extent().height * 72.0 / axes.figure.dpi
    wanted = [height * _share_of_height(axes, label.xy[1]) for label in labels]
    for label, place, moved in zip(labels, wanted, _spread(wanted, LABEL_GAP, height), strict=True):
        label.xyann = (5, moved - place)


def short(text: str) -> str:
    """`text` as a label: at most LABEL_LENGTH characters, all of them printable."""
    drawable = "".join(character if character.isprintable() else "?" for character in text)
    return drawable if len(drawable) <= LABEL_LENGTH else drawable[: LABEL_LENGTH - 1] + "…"


def frame(figure: Figure) -> tuple[float, float, float, float]:
    """The position of the panels in the figure: left, right, top, bottom, as shares of its width and height."""
    boxes = [axes.get_position() for axes in figure.axes]
    return (
        min(box.x0 for box in boxes),
        max(box.x1 for box in boxes),
        1 - max(box.y1 for box in boxes),
        1 - min(box.y0 for box in boxes),
    )


def svg(figure: Figure, salt: str) -> str:
    """The figure as an <svg> element for a page; its colours are the CSS variables --<name of PALETTE>.

    salt: a text unique to this figure in the page, so that its identifiers do not clash. Coordinates are rounded down
    to a hundredth of a point, for a smaller page.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for name, (light, _) in PALETTE.items():
        drawing = drawing.replace(light, f"var(--{name})")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), drawing)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure in its light colours to `path`, by its ending: .png at 2x, .svg, .pdf."""
    with report_style():
        figure.savefig(path, dpi=200)
    return Path(path)


def _share_of_height(axes: Axes, y: float) -> float:
    axes.autoscale_view()
    return float(axes.transAxes.inverted().transform(axes.transData.transform((0.0, y)))[1])


def _spread(places: Sequence[float], gap: float, ceiling: float) -> list[float]:
    """`places`, ascending, moved up just enough to be `gap` apart, then down if they exceed `ceiling`."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    limit = max(ceiling, gap * (len(moved) - 1))
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - gap
    return moved
