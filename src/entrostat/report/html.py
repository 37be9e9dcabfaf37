"""One HTML page about one or several runs: table, figures, samples. One file, no scripts, no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from entrostat.report.figures import PANELS, NotMeasuredError, draw_panel
from entrostat.report.overview import entropy_figure, pass_at_1_figure
from entrostat.report.reading import RunData, read_runs, summarise
from entrostat.report.samples import side_by_side
from entrostat.report.style import PALETTE, svg
from entrostat.runs import atomic_write


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure as it stands in the page: an SVG element, or the note in its place."""

    title: str
    caption: str
    image: str | None
    note: str | None


def build_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page about the run folders `runs` to the file `out`, and return it.

    Text from models and file names is escaped, and the page allows neither scripts nor connections.
    RunError: a folder is not a run, or `out` cannot be written. ValueError: no runs.
    """
    if not runs:
        raise ValueError("runs is empty; name at least one run folder")
    loaded = read_runs(runs)
    environment = Environment(
        loader=PackageLoader("entrostat.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = _share
    environment.filters["nats"] = _nats
    page = environment.get_template("page.html").render(
        title=" · ".join(run.name for run in loaded) if len(loaded) < 4 else f"{len(loaded)} runs",
        palette=PALETTE,
        rows=[summarise(run) for run in loaded],
        overview=_overview(loaded) if len(loaded) > 1 else [],
        runs=[_section(index, run) for index, run in enumerate(loaded)],
    )
    atomic_write(out, page.encode("utf-8", "backslashreplace"))
    return out


def _overview(runs: Sequence[RunData]) -> list[Drawing]:
    return [
        _drawing(
            "pass@1",
            "On the report split, one line a run. Dot: the checkpoint that a run rolled back to.",
            partial(pass_at_1_figure, runs),
            "overview-pass",
        ),
        _drawing("Entropy", "Of the training tokens, nats a token.", partial(entropy_figure, runs), "overview-entropy"),
    ]


def _section(index: int, run: RunData) -> dict[str, object]:
    return {
        "anchor": f"run-{index}",
        "name": run.name,
        "seed": run.run.seed,
        "decisions": run.decisions,
        "drawings": [
            _drawing(panel.title, panel.caption, partial(draw_panel, panel, run), f"{index}-{number}")
            for number, panel in enumerate(PANELS)
        ],
        "tasks": side_by_side(run),
        "recipe": json.dumps(run.run.recipe, indent=2),
        "versions": ", ".join(f"{name} {version}" for name, version in run.run.versions.items()),
        "hashes": run.run.hashes,
    }


def _drawing(title: str, caption: str, draw: Callable[[], Figure], salt: str) -> Drawing:
    try:
        return Drawing(title, caption, svg(draw(), salt), None)
    except NotMeasuredError as reason:
        return Drawing(title, caption, None, str(reason))


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _nats(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
