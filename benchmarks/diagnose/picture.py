"""The figure: recall against severity for each failure, the trade-off, and the real logs."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from shares import (
    CONTROL,
    OURS,
    Choice,
    Results,
    alarmed_real,
    found_made,
    found_real,
    name_of,
    of,
    trade_off,
    wilson,
)

from entrostat.report.style import AMBER, BLUE, GREEN, INK, MUTED, ORANGE, PURPLE

COLOURS = {OURS: BLUE, CONTROL: ORANGE, "rldoctor": GREEN, "rlprobe": PURPLE, "rlwatch": AMBER}
DASHED = (0, (4, 2))
ACROSS = 6


def shown(real: Results, on_real: dict[str, Choice], made: Results, on_made: dict[str, Choice]) -> dict[str, Any]:
    """What the figure shows, JSON-able: counts of hits and of logs."""
    kinds = dict.fromkeys(row["kind"] for rows in made.values() for row in rows if row["kind"] != "sound")
    curves: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in kinds}
    for tool, choice in on_made.items():
        for kind in kinds:
            rows = of(made[tool, choice.setting], kind=kind)
            if tool not in (OURS, CONTROL) and not any(found_made(row, choice.critical) for row in rows):
                continue  # it has no detector for this failure
            for severity in sorted({row["severity"] for row in rows}):
                own = [found_made(row, choice.critical) for row in of(rows, severity=severity)]
                curves[kind].setdefault(name_of(tool), []).append([severity, sum(own), len(own)])
    points = [
        [name_of(p.tool), p.choice.critical, sum(p.alarmed), len(p.alarmed), sum(p.clear), len(p.clear), sum(p.live)]
        for p in trade_off(made)
    ]
    logs = []
    for tool, choice in on_real.items():
        rows = real[tool, choice.setting]
        hits = [found_real(row, choice.critical) for row in of(rows, label="collapsed")]
        false = [alarmed_real(row, choice.critical) for row in of(rows, label="healthy")]
        logs.append([name_of(tool), sum(hits), len(hits), sum(false), len(false)])
    return {"curves": curves, "points": points, "logs": logs}


def figure(data: dict[str, Any]) -> Figure:
    kinds = data["curves"]
    down = -(-(len(kinds) + 1) // ACROSS)
    drawn = Figure(figsize=(9.5, 1.55 * down + 3.6), layout="constrained")
    upper, lower = drawn.subfigures(2, 1, height_ratios=(1.55 * down, 3.6))
    _panels(upper, kinds, down)
    left, right = lower.subplots(1, 2, width_ratios=(1.1, 1))
    _trade_off(left, data["points"])
    _logs(right, data["logs"])
    return drawn


def _panels(part: SubFigure, kinds: dict[str, Any], down: int) -> None:
    panels = part.subplots(down, ACROSS, sharex=True, sharey=True)
    for axes, (kind, tools) in zip(panels.flat, kinds.items(), strict=False):
        _curves(axes, kind, tools)
    spare = [*panels.flat][len(kinds) :]
    for axes in spare:
        axes.set_axis_off()
    _legend(spare[0])
    part.supxlabel("severity", fontsize=9, color=MUTED)
    part.supylabel("share of failing logs found", fontsize=9, color=MUTED)


def _curves(axes: Axes, kind: str, tools: dict[str, list[list[float]]]) -> None:
    for name, points in tools.items():
        x, hits, n = ([point[i] for point in points] for i in range(3))
        shares = [a / b for a, b in zip(hits, n, strict=True)]
        if name == OURS:
            low, high = zip(*(wilson(int(a), int(b)) for a, b in zip(hits, n, strict=True)), strict=True)
            axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0)
        if name in (OURS, CONTROL):
            axes.plot(x, shares, color=COLOURS[name], linestyle="-" if name == OURS else DASHED, zorder=3)
        else:
            axes.plot(x, shares, "o", color=COLOURS[name], markersize=4, alpha=0.85, clip_on=False)
    axes.set_title(kind, fontsize=9)
    axes.set_xlim(0, 1.04)
    axes.set_ylim(-0.03, 1.04)
    axes.set_xticks((0, 0.5, 1), ("0", ".5", "1"))
    axes.set_yticks((0, 0.5, 1), ("0", ".5", "1"))


def _legend(axes: Axes) -> None:
    for place, (name, colour) in enumerate(COLOURS.items()):
        y, own = 0.92 - 0.2 * place, name in (OURS, CONTROL)
        axes.plot(
            [0.0, 0.16] if own else [0.08],
            [y, y] if own else [y],
            linestyle=DASHED if name == CONTROL else "-",
            marker="" if own else "o",
            markersize=4,
            color=colour,
            transform=axes.transAxes,
        )
        axes.text(0.22, y, name, transform=axes.transAxes, va="center_baseline", color=INK, fontsize=9)


def _trade_off(axes: Axes, points: list[list[Any]]) -> None:
    for tool in dict.fromkeys(point[0] for point in points):
        own = [(alarmed / n, hits / m, critical) for name, critical, alarmed, n, hits, m, _ in points if name == tool]
        colour = COLOURS[tool]
        if tool in (OURS, CONTROL):
            line = [(x, y) for x, y, critical in own if not critical]
            live = [(at / n, hits / m) for name, critical, _, n, hits, m, at in points if name == tool and not critical]
            axes.plot(*zip(*live, strict=True), marker=".", linestyle=":", color=colour, markersize=3, alpha=0.8)
            axes.plot(
                *zip(*line, strict=True),
                marker="o",
                linestyle="-" if tool == OURS else DASHED,
                color=colour,
                markersize=3.5,
            )
            axes.plot(*line[len(line) // 2], "o", color=colour, markersize=9, fillstyle="none")
        else:
            axes.plot(*zip(*(point[:2] for point in own), strict=True), "o", color=colour, markersize=4.5, alpha=0.85)
    axes.set_title("made to order, thresholds varied (○ defaults; dotted: at some time)")
    axes.set_xlabel("share of sound logs alarmed")
    axes.set_ylabel("share of clear failures found")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="x")


def _logs(axes: Axes, logs: list[list[Any]]) -> None:
    for place, (name, hits, failing, false, healthy) in enumerate(reversed(logs)):
        colour = COLOURS.get(name, MUTED)
        for k, n, marker, y in ((hits, failing, "o", place + 0.16), (false, healthy, "x", place - 0.16)):
            axes.plot(wilson(k, n), [y, y], color=colour, linewidth=1.4, alpha=0.5)
            axes.plot(k / n, y, marker, color=colour, markersize=5, clip_on=False)
    axes.set_yticks(range(len(logs)), [log[0] for log in reversed(logs)])
    axes.set_ylim(-0.6, len(logs) - 0.4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_title("real logs: ● failures found, x healthy ones alarmed")
    axes.set_xlabel("share of logs, with its 95 % interval")
    axes.grid(axis="x")
    axes.tick_params(axis="y", labelcolor=INK)
