"""The figures of one run, and of several runs in one picture: one colour per run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from entrostat.report.panel import NotMeasuredError, Panel, curve, draw_panel, extremes, summed
from entrostat.report.reading import RunData, read_run, roll_back_step, series
from entrostat.report.style import (
    AMBER,
    BLUE,
    BROWN,
    CYCLE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    ROSE,
    SLATE,
    STEEL,
    label_ends,
    new_figure,
    report_style,
    short,
)
from entrostat.runs import CollapseReport

OVERVIEW_HEIGHT = 2.6  # inches
REGION_COLOURS = {"E1": BLUE, "E2": ORANGE, "E3": AMBER, "E4": PURPLE}
VERDICT_COLOURS = {
    "passed": GREEN,
    "wrong": AMBER,
    "runtime error": ORANGE,
    "timeout": ROSE,
    "syntax error": PURPLE,
    "no code": SLATE,
    "memory": BROWN,
    "output limit": STEEL,
    "infrastructure error": INK,
    "unfit task": "#888888",
}


def _pass_at_1(run: RunData) -> Figure:
    if run.report is None or len(run.report.steps) < 2:
        raise NotMeasuredError("Fewer than two evaluations of the report split: no curve of pass@1.")
    figure = new_figure()
    axes = figure.axes[0]
    labels = []
    if run.select is not None:
        curve(axes, run.select.steps, run.select.pass_at_1, "select", color=STEEL, linewidth=1, alpha=0.75)
        labels.append((run.select.end, "select", STEEL))
    curve(axes, run.report.steps, run.report.pass_at_1, "report", color=BLUE)
    labels.append((run.report.end, f"report {run.report.end:.0%}", BLUE))
    axes.set_ylim(0, max(0.1, 1.22 * max(run.report.peak, run.select.peak if run.select else 0.0)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if run.collapse is not None:
        _mark_peak(axes, run.collapse)
        _mark_floor(axes, run.collapse)
    _mark_decisions(axes, run)
    label_ends(axes, labels)
    return figure


def _mark_peak(axes: Axes, collapse: CollapseReport) -> None:
    for step, value in ((0, collapse.start), (collapse.peak_step, collapse.peak), (collapse.end_step, collapse.end)):
        axes.plot([step], [value], "o", color=BLUE, markersize=4.5, clip_on=False, zorder=4)
    if collapse.peak_step > 0:
        axes.annotate(
            f"start {collapse.start:.0%}", (0, collapse.start), (4, -13), textcoords="offset points", color=BLUE
        )
    late = collapse.peak_step > 0.8 * collapse.end_step
    side = "right" if late else "left" if collapse.peak_step == 0 else "center"
    label = f"peak {collapse.peak:.0%}"
    axes.annotate(label, (collapse.peak_step, collapse.peak), (0, 8), textcoords="offset points", ha=side, color=BLUE)


def _mark_floor(axes: Axes, collapse: CollapseReport) -> None:
    if collapse.noise_floor is not None and collapse.end_step > collapse.peak_step:
        axes.fill_between(
            [collapse.peak_step, collapse.end_step],
            collapse.peak - collapse.noise_floor,
            collapse.peak,
            color=BLUE,
            alpha=0.12,
            linewidth=0,
        )


def _mark_decisions(axes: Axes, run: RunData) -> None:
    for line in run.decisions:
        if line["kind"] == "stop":
            axes.axvline(line["step"], color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    target = roll_back_step(run)
    if target is not None:
        last = max(line["step"] for line in run.decisions)
        height = 0.06 * axes.get_ylim()[1]
        axes.annotate("", (target, height), (last, height), arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.9})
        axes.annotate(
            f"back to {target}",
            (target, height),
            (-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=INK,
        )


def _entropy(run: RunData) -> Figure:
    steps, entropy = _needed(run, "entropy")
    figure = new_figure()
    axes = figure.axes[0]
    curve(axes, steps, entropy, "entropy", color=INK)
    axes.set_ylim(0, 1.15 * max(entropy) or 1.0)
    axes.set_ylabel("nats per token")
    _draw_aim(axes, run)
    _shade_phases(axes, run)
    label_ends(axes, [(entropy[-1], f"{entropy[-1]:.2f}", INK)])
    return figure


def _draw_aim(axes: Axes, run: RunData) -> None:
    """The entropy that the control steers to, dashed, where it steers to one."""
    steps, aims = series(run.steps, "entropy_target")
    if steps:
        axes.plot(steps, aims, color=INK, linewidth=1, linestyle=(0, (4, 2)))


def _shade_phases(axes: Axes, run: RunData) -> None:
    """The strategy's phases as tinted stretches with their names at the top; nothing if the phase never changes."""
    named = [(line["step"], line["phase"]) for line in run.steps if isinstance(line.get("phase"), str)]
    stretches = [(phase, [step for step, _ in group]) for phase, group in groupby(named, key=lambda pair: pair[1])]
    names = list(dict.fromkeys(phase for phase, _ in stretches))
    if len(names) < 2:
        return
    span = named[-1][0] - named[0][0] + 1
    for phase, steps in stretches:
        tint = (ORANGE, BLUE, GREEN, PURPLE)[names.index(phase) % 4]
        axes.axvspan(steps[0] - 1, steps[-1], color=tint, alpha=0.1, linewidth=0)
        if len(steps) > 0.13 * span:
            middle = (steps[0] - 1 + steps[-1]) / 2
            axes.text(
                middle, 0.97, short(phase), transform=axes.get_xaxis_transform(), ha="center", va="top", color=tint
            )


def _region_shares(run: RunData) -> Figure:
    return _region_lines(run, "share")


def _region_clipping(run: RunData) -> Figure:
    return _region_lines(run, "clip_fraction")


def _region_lines(run: RunData, measure: str) -> Figure:
    curves = {name: series(run.steps, "regions", name, measure) for name in REGION_COLOURS}
    if min(len(steps) for steps, _ in curves.values()) < 2:
        raise NotMeasuredError(f"Fewer than two steps with regions.{measure}: no curves by region.")
    highest = max(max(values) for _, values in curves.values())
    if highest == 0:
        raise NotMeasuredError(f"regions.{measure} is 0 at every step, in every region.")
    figure = new_figure()
    axes = figure.axes[0]
    for name, (steps, values) in curves.items():
        curve(axes, steps, values, name, color=REGION_COLOURS[name])
    axes.set_ylim(0, 1.08 * highest)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label_ends(axes, [(values[-1], name, REGION_COLOURS[name]) for name, (_, values) in curves.items()])
    return figure


def _bounds(run: RunData) -> Figure:
    lines = [line for line in run.steps if isinstance(line.get("bounds"), dict)]
    if len(lines) < 2:
        raise NotMeasuredError("No clip bounds were in force: the ratio was never clipped.")
    upper = [line["bounds"]["upper_intercept"] for line in lines]
    lower = [line["bounds"]["lower_intercept"] for line in lines]
    lines = [lines[index] for index in extremes(upper, lower)]
    figure = new_figure()
    axes = figure.axes[0]
    steps = [line["step"] for line in lines]
    labels = []
    for side, sign, colour in (("upper", 1, ORANGE), ("lower", -1, BLUE)):
        intercept = np.array([line["bounds"][f"{side}_intercept"] for line in lines])
        slope = np.array([line["bounds"][f"{side}_slope"] for line in lines])
        rare, likely = 1 + sign * intercept, 1 + sign * (intercept + slope)
        axes.fill_between(steps, rare, likely, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, rare, color=colour, label=f"{side}, p = 0")
        axes.plot(steps, likely, color=colour, linewidth=0.9, label=f"{side}, p = 1")
        if abs(rare[-1] - likely[-1]) < 0.005:
            labels.append((float(rare[-1]), side, colour))
        else:
            labels.append((float(rare[-1]), f"{side}, p = 0", colour))
            labels.append((float(likely[-1]), f"{side}, p = 1", colour))
    axes.axhline(1.0, color=MUTED, linewidth=0.6)
    axes.margins(y=0.1)
    label_ends(axes, labels)
    return figure


def _flow(run: RunData) -> Figure:
    steps, up = _needed(run, "flow_up")
    down_steps, down = _needed(run, "flow_down")
    if steps != down_steps:
        raise NotMeasuredError("flow_up and flow_down were not logged at the same steps.")
    figure = new_figure()
    axes = figure.axes[0]
    net = [rise + fall for rise, fall in zip(up, down, strict=True)]
    shown = extremes(up, down, net)
    steps, up, down, net = ([values[index] for index in shown] for values in (steps, up, down, net))
    axes.fill_between(steps, up, color=ORANGE, alpha=0.3, linewidth=0)
    axes.fill_between(steps, down, color=BLUE, alpha=0.3, linewidth=0)
    axes.axhline(0.0, color=MUTED, linewidth=0.6)
    axes.plot(steps, net, color=INK, linewidth=1.2, label="net")
    for name, values in (("up", up), ("down", down)):
        axes.plot(steps, values, label=name, visible=False)
    label_ends(axes, [(up[-1], "up", ORANGE), (down[-1], "down", BLUE), (net[-1], "net", INK)])
    return figure


def _verdicts(run: RunData) -> Figure:
    lines = [line for line in run.steps if isinstance(line.get("verdicts"), dict) and sum(line["verdicts"].values())]
    if len(lines) < 2:
        raise NotMeasuredError("Fewer than two steps with verdicts: no shares to draw.")
    present = {outcome for line in lines for outcome, count in line["verdicts"].items() if count}
    outcomes = [name for name in VERDICT_COLOURS if name in present] + sorted(present - set(VERDICT_COLOURS))
    counts = np.array([[line["verdicts"].get(outcome, 0) for line in lines] for outcome in outcomes], dtype=float)
    shown, counts = summed(counts)
    shares = counts / counts.sum(axis=0)
    colours = [VERDICT_COLOURS.get(outcome, MUTED) for outcome in outcomes]
    figure = new_figure()
    axes = figure.axes[0]
    steps = [lines[index]["step"] for index in shown]
    axes.stackplot(steps, shares, colors=colours, alpha=0.8, linewidth=0)
    for outcome, share in zip(outcomes, shares, strict=True):
        axes.plot(steps, share, label=outcome, visible=False)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    middles = shares[:, -1].cumsum() - shares[:, -1] / 2
    label_ends(axes, [*zip(middles.tolist(), outcomes, colours, strict=True)])
    return figure


def _length(run: RunData) -> Figure:
    steps, length = _needed(run, "length")
    cut_steps, truncated = series(run.steps, "truncated")
    figure = new_figure(rows=2, height=3.0)
    panels = figure.axes
    curve(panels[0], steps, length, "tokens", color=GREEN)
    panels[0].set_ylim(0, 1.15 * max(length) or 1.0)
    curve(panels[1], cut_steps, truncated, "truncated", color=ROSE)
    panels[1].set_ylim(0, max(0.05, 1.15 * max(truncated, default=0.0)))
    panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    label_ends(panels[0], [(length[-1], "tokens", GREEN)])
    if truncated:
        label_ends(panels[1], [(truncated[-1], "truncated", ROSE)])
    return figure


def _warnings(run: RunData) -> Figure:
    signals = (
        ("log_ratio_min_punished", "lowest punished", PURPLE),
        ("ratio_outside", "outside .8-1.2", ORANGE),
        ("grad_norm", "gradient norm", BLUE),
    )
    curves = [(series(run.steps, field), label, colour) for field, label, colour in signals]
    if max(len(steps) for (steps, _), _, _ in curves) < 2:
        raise NotMeasuredError("Fewer than two steps with ratio or gradient signals: nothing to watch.")
    figure = new_figure(rows=3, height=3.6)
    for axes, ((steps, values), label, colour) in zip(figure.axes, curves, strict=True):
        curve(axes, steps, values, label, color=colour, linewidth=1.2)
        if values and min(values) >= 0:
            axes.set_ylim(bottom=0)
        if values:
            label_ends(axes, [(values[-1], label, colour)])
    return figure


def _needed(run: RunData, field: str) -> tuple[list[int], list[float]]:
    steps, values = series(run.steps, field)
    if len(steps) < 2:
        raise NotMeasuredError(f"Fewer than two steps with {field}: no curve to draw.")
    return steps, values


PANELS: Sequence[Panel] = (
    Panel(
        "pass@1",
        "The peak is chosen on the select split and read on the report split. Band: how far an unchanged policy "
        "would seem to fall below its peak by noise alone. Dotted: the rule stopped the campaign.",
        _pass_at_1,
    ),
    Panel("Entropy", "Of the policy over the training tokens; background: the strategy's phase.", _entropy),
    Panel("Regions", "Share of tokens. Updates on E1 and E4 lower entropy, on E2 and E3 raise it.", _region_shares),
    Panel("Clipped tokens", "Share of each region's tokens whose gradient the clip rule removed.", _region_clipping),
    Panel("Bounds in force", "On the ratio, for a token of probability p = 0 (thick) and p = 1 (thin).", _bounds),
    Panel("Entropy flow", "First-order change of entropy that the unclipped updates ask for, per token.", _flow),
    Panel("Verdicts", "On the training completions.", _verdicts),
    Panel("Length", "Mean tokens per completion, and the share of completions that hit the limit.", _length),
    Panel(
        "What may announce a cliff",
        "Lowest log-ratio of a punished token; share of tokens with a ratio outside .8-1.2; gradient norm.",
        _warnings,
    ),
)


def plot(name: str, run: str | Path | RunData) -> Figure:
    """The figure of a run by its title in the report (`PLOTS`, in any case), as a matplotlib figure.

    run: a run folder, or what `read_run` made of it. ValueError: no figure has this name. NotMeasuredError: the run
    lacks its data. RunError: the folder is not a run's.
    """
    named = {panel.title.lower(): panel for panel in PANELS}
    if name.lower() not in named:
        raise ValueError(f"name is {name!r}; choose one of {', '.join(PLOTS)}")
    return draw_panel(named[name.lower()], run if isinstance(run, RunData) else read_run(run))


PLOTS: Sequence[str] = tuple(panel.title for panel in PANELS)
"""The names that `plot` takes."""


def overview_figure(runs: Sequence[RunData]) -> Figure:
    """pass@1 beside entropy, for a README. NotMeasuredError: no run measured one of them."""
    with report_style():
        figure = new_figure(columns=2, height=OVERVIEW_HEIGHT, label_width=_label_width(runs))
        _pass_at_1_of(figure.axes[0], runs)
        _entropy_of(figure.axes[1], runs)
        figure.axes[0].set_title("pass@1 on the report split")
        figure.axes[1].set_title("entropy, nats per token")
    return figure


def pass_at_1_figure(runs: Sequence[RunData]) -> Figure:
    """pass@1 on the report split over steps. NotMeasuredError: no run evaluated it."""
    with report_style():
        figure = new_figure(height=OVERVIEW_HEIGHT, label_width=_label_width(runs))
        _pass_at_1_of(figure.axes[0], runs)
    return figure


def entropy_figure(runs: Sequence[RunData]) -> Figure:
    """Entropy of the training tokens over steps. NotMeasuredError: no run measured it."""
    with report_style():
        figure = new_figure(height=OVERVIEW_HEIGHT, label_width=_label_width(runs))
        _entropy_of(figure.axes[0], runs)
    return figure


def _pass_at_1_of(axes: Axes, runs: Sequence[RunData]) -> None:
    labels = []
    for colour, run in zip(_colours(runs), runs, strict=True):
        if run.report is None:
            continue
        curve(axes, run.report.steps, run.report.pass_at_1, run.name, color=colour)
        handed_over = roll_back_step(run)
        if handed_over in run.report.steps:
            axes.plot([handed_over], [run.report.at(handed_over)], "o", color=colour, markersize=5)
        labels.append((run.report.end, run.name, colour))
    if not labels:
        raise NotMeasuredError("No run evaluated the report split: no curve of pass@1.")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish(axes, labels, max(run.last_step for run in runs))


def _entropy_of(axes: Axes, runs: Sequence[RunData]) -> None:
    labels = []
    for colour, run in zip(_colours(runs), runs, strict=True):
        steps, entropy = series(run.steps, "entropy")
        if steps:
            curve(axes, steps, entropy, run.name, color=colour)
            _draw_aim(axes, run)
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
