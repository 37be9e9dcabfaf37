"""Several runs in one picture: pass@1 and entropy over steps, one colour per run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from entrostat.report.panel import NotMeasuredError, curve
from entrostat.report.reading import RunData, roll_back_step, series
from entrostat.report.style import CYCLE, house_style, label_ends, new_figure, short

HEIGHT = 2.6


def overview_figure(runs: Sequence[RunData]) -> Figure:
    """pass@1 beside entropy, for a README. NotMeasuredError: no run has the one, or none the other."""
    with house_style():
        figure = new_figure(columns=2, height=HEIGHT, label_width=_label_width(runs))
        _pass_at_1(figure.axes[0], runs)
        _entropy(figure.axes[1], runs)
        figure.axes[0].set_title("pass@1 on the report split")
        figure.axes[1].set_title("entropy, nats per token")
    return figure


def pass_at_1_figure(runs: Sequence[RunData]) -> Figure:
    """pass@1 on the report split over steps. NotMeasuredError: no run evaluated it."""
    with house_style():
        figure = new_figure(height=HEIGHT, label_width=_label_width(runs))
        _pass_at_1(figure.axes[0], runs)
    return figure


def entropy_figure(runs: Sequence[RunData]) -> Figure:
    """Entropy of the training tokens over steps. NotMeasuredError: no run measured it."""
    with house_style():
        figure = new_figure(height=HEIGHT, label_width=_label_width(runs))
        _entropy(figure.axes[0], runs)
    return figure


def _pass_at_1(axes: Axes, runs: Sequence[RunData]) -> None:
    labels = []
    for colour, run in zip(_colours(runs), runs, strict=True):
        if run.report is None:
            continue
        curve(axes, run.report.steps, run.report.pass_at_1, color=colour)
        handed_over = roll_back_step(run)
        if handed_over in run.report.steps:
            axes.plot([handed_over], [run.report.at(handed_over)], "o", color=colour, markersize=5)
        labels.append((run.report.end, run.name, colour))
    if not labels:
        raise NotMeasuredError("No run evaluated the report split: no curve of pass@1.")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish(axes, labels, max(run.last_step for run in runs))


def _entropy(axes: Axes, runs: Sequence[RunData]) -> None:
    labels = []
    for colour, run in zip(_colours(runs), runs, strict=True):
        steps, entropy = series(run.steps, "entropy")
        if steps:
            curve(axes, steps, entropy, color=colour)
            labels.append((entropy[-1], run.name, colour))
    if not labels:
        raise NotMeasuredError("No run measured entropy: no curve to draw.")
    _finish(axes, labels, max(run.last_step for run in runs))


def _finish(axes: Axes, labels: Sequence[tuple[float, str, str]], last_step: int) -> None:
    axes.set_xlim(0, last_step)
    axes.set_ylim(bottom=0)
    label_ends(axes, labels)


def _label_width(runs: Sequence[RunData]) -> float:
    """Inches that the longest run name takes."""
    return 0.2 + 0.075 * max(len(short(run.name)) for run in runs)


def _colours(runs: Sequence[RunData]) -> list[str]:
    return [CYCLE[index % len(CYCLE)] for index in range(len(runs))]
