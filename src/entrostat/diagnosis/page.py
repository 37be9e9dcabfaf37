"""A diagnosis as one HTML page: no scripts, no network, light and dark; a picture for each finding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entrostat.diagnosis.columns import QUANTITIES
from entrostat.diagnosis.diagnosis import Diagnosis
from entrostat.diagnosis.history import History, Series
from entrostat.diagnosis.hosts import HOSTS, as_text, host_of, shown_hosts
from entrostat.report.style import BLUE, GREEN, MUTED, ORANGE, PALETTE, label_ends, new_figure, report_style, svg
from entrostat.runs import atomic_write
from entrostat.runs.finding import Finding
from entrostat.runs.html import page_template


def write_page(diagnosis: Diagnosis, out: str | Path) -> Path:
    """Write the page about a diagnosis to the file `out`, and return it. RunError: it cannot be written.

    Text from logs is escaped, and the page allows neither scripts nor connections.
    """
    page = page_template("entrostat.diagnosis", "diagnosis.html", settings=as_text).render(
        diagnosis=diagnosis,
        palette=PALETTE,
        quantities=QUANTITIES,
        hosts=HOSTS,
        shown_hosts=shown_hosts(host_of(name for own in diagnosis.log.used.values() for name in own)),
        drawings={
            finding.kind: svg(draw_finding(finding, diagnosis.watchdog.history), finding.kind)
            for finding in diagnosis.findings
        },
    )
    place = Path(out)
    atomic_write(place, page.encode("utf-8", "backslashreplace"))
    return place


WINDOW = 9  # values averaged into the stronger line of a noisy series
COLOURS = (BLUE, GREEN, MUTED)


def draw_finding(finding: Finding, history: History) -> Figure:
    """The finding's columns over steps, a panel each, its levels, a line at the onset and one where it was found."""
    columns = [name for name in finding.columns if len(history.series(name))] or list(finding.columns[:1])
    with report_style():
        figure = new_figure(rows=len(columns), height=0.7 + 1.55 * len(columns), label_width=0.95)
        for place, (axes, name, colour) in enumerate(zip(figure.axes, columns, COLOURS, strict=False)):
            axes.set_title(QUANTITIES[name].meaning)
            series = history.series(name)
            broken = history.broken.get(name, [])
            _curve(axes, series, colour)
            axes.plot(broken, np.zeros(len(broken)), "x", color=ORANGE, markersize=5)
            axes.axvline(finding.onset, color=ORANGE, linewidth=1.0, linestyle=(0, (4, 2)))
            axes.axvline(finding.step, color=ORANGE, linewidth=1.0)
            _levels(axes, finding if place == 0 else None, series, colour)
    return figure


def _curve(axes: Axes, series: Series, colour: str) -> None:
    """The values as they were logged, and through many of them their moving mean."""
    steps, values = series
    if len(values) < 4 * WINDOW:
        axes.plot(steps, values, color=colour, marker="o" if len(values) < 12 else "", markersize=3)
        return
    axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35)
    mean = np.convolve(values, np.full(WINDOW, 1 / WINDOW), "valid")
    axes.plot(steps[WINDOW // 2 : WINDOW // 2 + len(mean)], mean, color=colour)


def _levels(axes: Axes, finding: Finding | None, series: Series, colour: str) -> None:
    labels = [(float(series.values[-1]), f"{series.values[-1]:.3g}", colour)] if len(series) else []
    for name, level in (finding.levels if finding else {}).items():
        axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        labels.append((level, name, MUTED))
    if len(series) and series.values.min() >= 0:
        axes.set_ylim(bottom=0)
    label_ends(axes, labels)
