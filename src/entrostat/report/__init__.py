"""Figures and pages made from run folders."""

from entrostat.report.figures import PANELS, PLOTS, overview_figure, plot
from entrostat.report.html import build_report
from entrostat.report.panel import NotMeasuredError, Panel, draw_panel
from entrostat.report.reading import RunData, Speed, SummaryRow, read_run, read_runs, speed, summary_rows
from entrostat.report.style import save_figure

__all__ = [
    "PANELS",
    "PLOTS",
    "NotMeasuredError",
    "Panel",
    "RunData",
    "Speed",
    "SummaryRow",
    "build_report",
    "draw_panel",
    "overview_figure",
    "plot",
    "read_run",
    "read_runs",
    "save_figure",
    "speed",
    "summary_rows",
]
