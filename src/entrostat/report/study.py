"""The report of a study: what its chains did, beside their oracles, with the evidence for each difference."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from entrostat.report.study_reading import ChainData, MethodData, StudyData, read_study
from entrostat.report.style import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PALETTE,
    PURPLE,
    SURFACE,
    report_style,
    save_figure,
    svg,
)
from entrostat.runs import Estimate, atomic_write, holm, paired_interval, share_interval, sign_test
from entrostat.runs.html import page_template

CAPTION = (
    "pass@1 on the report split. End: what the last campaign hands over, mean over seeds with a 95 % interval, "
    "and each seed's value. Gap: a campaign's peak (chosen on select) minus its end; floor: "
    "the gap that evaluation noise alone would show. Collapsed: share of campaigns with a gap above .2. Trace "
    "oracle: the best that online early stop, applied afterwards, would have handed over in a campaign, where the "
    "report split was evaluated there. Oracle: the best peak of the chain; of oracle: end over the best peak that "
    "any method's chain of that seed had. Evaluations: of the whole select split. Against the first method: mean "
    "difference over shared seeds, its interval, and the sign test's p after Holm's correction."
)


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """A method in the headline table. Only finished chains count; n is their number."""

    method: str
    end: Estimate
    gap: float
    floor: float
    collapsed: float
    trace_oracle: float | None
    oracle: float
    of_oracle: float
    steps: float
    evaluations: float
    per_100_steps: float
    difference: Estimate | None
    p_value: float | None

    def plain(self) -> dict[str, str]:
        """The row as text, in the order of the table's columns."""
        against = self.difference
        return {
            "method": self.method,
            "n": str(self.end.n),
            "end": _interval(self.end),
            "seeds": " ".join(f"{value:.3f}" for value in self.end.values),
            "gap": f"{self.gap:.3f}",
            "floor": f"{self.floor:.3f}",
            "collapsed": f"{self.collapsed:.0%}",
            "trace oracle": "-" if self.trace_oracle is None else f"{self.trace_oracle:.3f}",
            "oracle": f"{self.oracle:.3f}",
            "of oracle": f"{self.of_oracle:.0%}",
            "steps": f"{self.steps:.0f}",
            "evaluations": f"{self.evaluations:.1f}",
            "points/100 steps": f"{self.per_100_steps:.2f}",
            "difference": "-" if against is None else _interval(against, sign="+"),
            "p (Holm)": "-" if self.p_value is None else f"{self.p_value:.3f}",
        }


def headline(folder: str | Path) -> list[HeadlineRow]:
    """The headline table of a study folder: the methods with a finished chain, in the recipe's order.

    RunError: `folder` is not a study.
    """
    return _headline(read_study(folder))


def build_study_report(folder: str | Path) -> Path:
    """Write the page <folder>/report.html, and each figure and table beside it under <folder>/report/.

    Figures as PNG and PDF, tables as CSV and LaTeX. Returns the page. RunError: `folder` is not a study, or the
    disk is full.
    """
    study = read_study(folder)
    rows = [row.plain() for row in _headline(study)]
    out = study.folder / "report"
    out.mkdir(exist_ok=True)
    drawings = []
    for figure in FIGURES:
        drawn = figure.draw(study)
        if drawn is None:
            continue
        for ending in ("png", "pdf"):
            save_figure(drawn, out / f"{figure.name}.{ending}")
        drawings.append((figure.title, figure.caption, svg(drawn, figure.name)))
    tables = {"headline": rows, "campaigns": study.campaign_rows()}
    for name, content in tables.items():
        if content:
            atomic_write(out / f"{name}.csv", _as_csv(content).encode())
    if rows:
        atomic_write(out / "headline.tex", as_latex(rows).encode())
    page = page_template("entrostat.report", "study.html").render(
        title=study.name,
        palette=PALETTE,
        caption=CAPTION,
        rows=rows,
        warnings=sorted({row.end.note for row in _headline(study)}),
        unfinished=study.unfinished,
        drawings=drawings,
        samples=study.samples(),
        recipe=json.dumps(study.recipe, indent=2),
    )
    atomic_write(study.folder / "report.html", page.encode("utf-8", "backslashreplace"))
    return study.folder / "report.html"


def as_latex(rows: Sequence[dict[str, str]]) -> str:
    """Rows of text as a LaTeX tabular with booktabs rules."""
    head = list(rows[0])
    lines = [" & ".join(map(_escaped, values)) + r" \\" for values in (head, *(row.values() for row in rows))]
    columns = "l" + "r" * (len(head) - 1)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}", ""])


def _headline(study: StudyData) -> list[HeadlineRow]:
    methods = [method for method in study.methods if method.finished]
    best = study.best_peaks()
    first = study.methods[0] if study.methods else None
    contrasts = [_contrast(first, method) for method in methods]
    tested = [contrast[1] for contrast in contrasts if contrast]
    corrected = iter(holm(tested) if tested else ())
    rows = []
    for method, contrast in zip(methods, contrasts, strict=True):
        ends = share_interval([chain.end for chain in method.finished])
        campaigns = [row for chain in method.finished for row in chain.campaigns]
        steps = _mean(sum(row["steps"] for row in chain.campaigns) for chain in method.finished)
        rows.append(
            HeadlineRow(
                method.name,
                ends,
                gap=_mean(row["gap"] for row in campaigns),
                floor=_mean(row["noise_floor"] for row in campaigns),
                collapsed=_mean(row["collapsed"] for row in campaigns),
                trace_oracle=_known_mean([chain.trace_oracle for chain in method.finished]),
                oracle=_mean(chain.oracle for chain in method.finished),
                of_oracle=_mean(chain.end / best[chain.seed] for chain in method.finished if best[chain.seed]),
                steps=steps,
                evaluations=_mean(
                    sum(row["select_evaluations"] for row in chain.campaigns) for chain in method.finished
                ),
                per_100_steps=10_000 * ends.mean / steps if steps else 0.0,
                difference=contrast[0] if contrast else None,
                p_value=next(corrected) if contrast else None,
            )
        )
    return rows


def _contrast(first: MethodData | None, other: MethodData) -> tuple[Estimate, float] | None:
    """The difference of `other` from the first method over the seeds that both have finished."""
    if first is None or other is first:
        return None
    ends = {chain.seed: chain.end for chain in first.finished}
    pairs = [(chain.end, ends[chain.seed]) for chain in other.finished if chain.seed in ends]
    if not pairs:
        return None
    a, b = zip(*pairs, strict=True)
    return paired_interval(a, b), sign_test(a, b).p_value


def _interval(estimate: Estimate, sign: str = "") -> str:
    mean = f"{estimate.mean:{sign}.3f}"
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _escaped(text: str) -> str:
    return "".join(r"\textbackslash{}" if c == "\\" else "\\" + c if c in "&%$#_{}" else c for c in text)


WIDTH = 8.4
COLUMNS = 4
SEEDS = (BLUE, ORANGE, GREEN, PURPLE, AMBER)


@dataclass(frozen=True, slots=True)
class StudyFigure:
    """A figure of the study's page; name is that of its files."""

    name: str
    title: str
    caption: str
    draw: Callable[[StudyData], Figure | None]


def _panels(study: StudyData, draw: Callable[[Axes, MethodData], None], xlabel: str) -> Figure | None:
    """Small multiples on equal axes: a panel for each method that has a finished campaign."""
    methods = [method for method in study.methods if any(chain.campaigns for chain in method.chains)]
    if not methods:
        return None
    rows = ceil(len(methods) / COLUMNS)
    columns = min(COLUMNS, len(methods))
    with report_style():
        figure = Figure(figsize=(WIDTH * max(columns, 2) / COLUMNS, 1.9 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, method in zip(grid.flat, methods, strict=False):
            draw(axes, method)
            axes.set_title(method.name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, steps=(1, 2, 5, 10)))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        grid[0, 0].set_ylim(bottom=0)  # after drawing: limits set earlier would cut off later curves
        for axes in list(grid.flat)[len(methods) :]:
            axes.set_visible(False)
        for column in range(columns):
            lowest = max(row for row in range(rows) if row * columns + column < len(methods))
            grid[lowest, column].set_xlabel(xlabel)
            grid[lowest, column].tick_params(labelbottom=True)
    return figure


def _chain_line(axes: Axes, chain: ChainData, colour: str) -> None:
    """Select's pass@1 over all optimizer steps of the chain, broken where a campaign hands over."""
    offset = 0
    for row, curve in zip(chain.campaigns, chain.select, strict=True):
        if len(curve) > 1:
            axes.plot([offset + s for s, _ in curve], [p for _, p in curve], color=colour, linewidth=1, alpha=0.8)
        offset += row["steps"]
        axes.plot([offset], [row["handed_over"]], "o", color=colour, markersize=2.6, zorder=3)


def rise_and_fall(study: StudyData) -> Figure | None:
    """pass@1 along each chain."""

    def draw(axes: Axes, method: MethodData) -> None:
        for number, chain in enumerate(method.chains):
            _chain_line(axes, chain, SEEDS[number % len(SEEDS)])

    return _panels(study, draw, "optimizer step")


def aligned(study: StudyData) -> Figure | None:
    """All campaigns of a method over one another."""

    def draw(axes: Axes, method: MethodData) -> None:
        curves = [curve for chain in method.chains for curve in chain.select if len(curve) > 1]
        for curve in curves:
            axes.plot([s for s, _ in curve], [p for _, p in curve], color=BLUE, linewidth=0.7, alpha=0.35)
        steps = sorted({s for curve in curves for s, _ in curve})
        mean = [np.mean([p for curve in curves for t, p in curve if t == s]) for s in steps]
        axes.plot(steps, mean, color=INK)

    return _panels(study, draw, "step of the campaign")


def ends(study: StudyData) -> Figure | None:
    """What each campaign hands over, along the chain."""

    def draw(axes: Axes, method: MethodData) -> None:
        chains = [chain for chain in method.chains if chain.campaigns]
        for number, chain in enumerate(chains):
            values = [chain.campaigns[0]["start"], *(row["handed_over"] for row in chain.campaigns)]
            axes.plot(range(len(values)), values, color=SEEDS[number % len(SEEDS)], linewidth=1.1, marker="o", ms=2.6)

    return _panels(study, draw, "campaign")


def gaps(study: StudyData) -> Figure | None:
    """Gap of every campaign, beside its noise floor."""
    methods = [method for method in study.methods if any(chain.campaigns for chain in method.chains)]
    if not methods:
        return None
    with report_style():
        figure = Figure(figsize=(WIDTH, 0.3 * len(methods) + 1.0), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(methods):
            rows = [row for chain in method.chains for row in chain.campaigns]
            values = [row["gap"] for row in rows]
            floor = float(np.mean([row["noise_floor"] for row in rows]))
            axes.fill_betweenx([place - 0.32, place + 0.32], 0, floor, color=MUTED, alpha=0.25, linewidth=0)
            spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [0.0]
            axes.plot(values, place + np.array(spread), "o", color=BLUE, markersize=3, alpha=0.55, markeredgewidth=0)
            mean = float(np.mean(values))
            axes.plot([mean, mean], [place - 0.34, place + 0.34], color=INK, linewidth=2)
        axes.set_yticks(range(len(methods)), [method.name for method in methods])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.axvline(0, color=MUTED, linewidth=0.6)
        axes.axvline(0.2, color=ORANGE, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("gap: peak minus end, points of pass@1 on the report split")
    return figure


def efficiency(study: StudyData) -> Figure | None:
    """End-of-chain pass@1, with its interval over seeds, over the evaluations that it took."""
    ends = {
        method.name: share_interval([chain.end for chain in method.finished])
        for method in study.methods
        if method.finished
    }
    points = [
        (
            method.name,
            float(np.mean([sum(row["select_evaluations"] for row in chain.campaigns) for chain in method.finished])),
            ends[method.name].mean,
        )
        for method in study.methods
        if method.finished
    ]
    if not points:
        return None
    with report_style():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = figure.subplots()
        for name, used, end in points:
            low, high = ends[name].low, ends[name].high
            if low is not None and high is not None:
                axes.plot([used, used], [low, high], color=BLUE, linewidth=1, alpha=0.6, clip_on=False)
            axes.plot([used], [end], "o", color=BLUE, markersize=5, clip_on=False)
        _label_points(axes, points)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0, right=1.25 * max(used for _, used, _ in points))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("evaluations of the select split per chain")
    return figure


def _label_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Names beside their points; those that share a place are stacked, with a line to their point."""
    highest = max(end for *_, end in points) or 1.0
    widest = max(used for _, used, _ in points)
    line = 0.055 * highest
    taken: list[tuple[float, float]] = []
    for name, used, end in sorted(points, key=lambda point: point[2]):
        at = max([end, 0.5 * line, *(y + line for x, y in taken if abs(x - used) < 0.12 * widest and y > end - line)])
        taken.append((used, at))
        leader = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "relpos": (0, 0.5)}
        axes.annotate(
            name,
            (used, end),
            (used + 0.025 * widest, at),
            va="center",
            fontsize=8,
            color=INK,
            arrowprops=leader if at > end + 0.5 * line else None,
        )


def cliffs(study: StudyData) -> Figure | None:
    """Where campaigns fall, and how much of the fall is in one step."""
    rows = [
        (method.name, row)
        for method in study.methods
        for chain in method.chains
        for row in chain.campaigns
        if row["phase_score"] is not None and row["collapsed"]
    ]
    if not rows:
        return None
    with report_style():
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        bars = {"color": BLUE, "edgecolor": SURFACE}
        left.hist([row["onset"] for _, row in rows], bins=np.arange(-0.5, study.steps + 1.5), **bars)
        left.set_xlabel("onset: step of the largest drop")
        left.yaxis.set_major_locator(MaxNLocator(integer=True))
        right.hist([row["phase_score"] for _, row in rows], bins=np.linspace(0, 1, 11), **bars)
        right.set_xlabel("share of the fall in that step")
        right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        left.set_title("collapsed campaigns")
    return figure


FIGURES: Sequence[StudyFigure] = (
    StudyFigure(
        "rise-and-fall",
        "Rise and fall",
        "pass@1 along each chain, one colour per seed. Lines: select, where it was evaluated at every step. Dots: "
        "report, of what each campaign hands over.",
        rise_and_fall,
    ),
    StudyFigure("aligned", "Campaigns aligned", "Each campaign on select, and their mean (thick).", aligned),
    StudyFigure(
        "ends", "Along the chain", "pass@1 on report of what each campaign hands over, one line per seed.", ends
    ),
    StudyFigure(
        "gaps",
        "Gaps",
        "Dots: campaigns; thick: their mean; grey: the mean noise floor; dashed: above it a campaign has collapsed.",
        gaps,
    ),
    StudyFigure("efficiency", "Efficiency", "Mean end-of-chain pass@1 over what it took to choose it.", efficiency),
    StudyFigure("cliffs", "Cliff geometry", "Of campaigns that collapsed and were evaluated at every step.", cliffs),
)
