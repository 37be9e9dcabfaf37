"""What the studies of the entropy on a curve share: the error, batch noise, courses with seeds, the curve itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from entrostat.report.style import INK

SKIPPED = 20  # steps before the error on a curve counts

Points = Sequence[Sequence[float]]


def error_on(points: Points, course: Sequence[float]) -> float:
    """The mean of |H / curve - 1| over the steps after the first SKIPPED; course: H by step, in nats per token."""
    from entrostat.control import Curve

    curve, steps = Curve(tuple((x, y) for x, y in points)), len(course)
    return fmean([abs(h / curve.at(k / steps) - 1) for k, h in enumerate(course, 1)][SKIPPED:])


def noise(values: Sequence[float]) -> float:
    """The mean relative deviation of a batch's entropy from a smooth course, whose noise has no memory.

    Of independent noise with deviation s, x_k minus the mean of its neighbours has the deviation s sqrt(3/2).
    """
    residuals = [abs(b / ((a + c) / 2) - 1) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return fmean(residuals) * (2 / 3) ** 0.5


def drawn_courses(
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    condition: str,
    colour: str,
    label: str,
    quantity: str = "entropy",
) -> None:
    """Every seed thin, the mean thick."""
    own = [row for row in rows if row["condition"] == condition]
    steps = sorted({row["step"] for row in own})
    for seed in sorted({row["seed"] for row in own}):
        axis.plot(steps, [row[quantity] for row in own if row["seed"] == seed], color=colour, linewidth=0.4, alpha=0.3)
    mean = [fmean(row[quantity] for row in own if row["step"] == step) for step in steps]
    axis.plot(steps, mean, color=colour, linewidth=2, label=label)


def drawn_curve(axis: Axes, points: Points, last: float) -> None:
    """The curve as it was set; last: the last step."""
    xs, ys = zip(*points, strict=True)
    xs, ys = (*xs, 1.0), (*ys, ys[-1])
    axis.plot([x * last for x in xs], ys, color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label="the curve")
