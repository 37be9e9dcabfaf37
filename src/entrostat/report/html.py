"""One HTML page about one or several runs: table, figures, samples. One file that needs no network.

What a model wrote is untrusted: it enters the page as escaped text or escaped JSON, never as markup. The page's content
security policy allows one script, ours, by its hash; it forbids turning text into markup and any network access.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template

from entrostat.report.figures import PANELS, entropy_figure, pass_at_1_figure
from entrostat.report.panel import Drawing, Pair, draw, draw_pairs, draw_panel
from entrostat.report.reading import RunData, handed_over_step, read_runs, summarise
from entrostat.report.samples import browser_data, side_by_side
from entrostat.report.style import PALETTE
from entrostat.runs import Estimate, atomic_write, paired_interval, pass_at_k
from entrostat.runs.finding import Finding
from entrostat.runs.html import page_template
from entrostat.runs.metrics import METRICS

PAGE_BYTES = 2_900_000  # the page's size with as many samples as fit
SECTIONS_BYTES = 1_800_000  # the maximum for the sections of single runs
MOST_COMPARED = 4  # runs whose recipes are compared


def build_report(
    runs: Sequence[str | Path] | Sequence[RunData],
    out: str | Path,
    findings: Sequence[Sequence[Finding]] | None = None,
) -> Path:
    """Write the page about `runs`, as folders or as `read_runs` read them, to the file `out`, and return it.

    findings: the findings of each run, shown at the top; None if there was no diagnosis. The page stays under 3 MB:
    it embeds as many samples as fit, and of many runs it shows only the first sections. A folder named twice is one
    run.
    RunError: a folder is not a run, or `out` cannot be written. ValueError: no runs, or not one list of findings per
    run.
    """
    if not runs:
        raise ValueError("runs is empty; name at least one run folder")
    folders = [run for run in runs if not isinstance(run, RunData)]
    loaded = read_runs(folders) if folders else [run for run in runs if isinstance(run, RunData)]
    if findings is not None and len(findings) != len(loaded):
        raise ValueError(
            f"findings are of {len(findings)} runs, runs are {len(loaded)}; give one list per run, empty for none"
        )
    script = (resources.files("entrostat.report") / "templates" / "page.js").read_text()
    render = partial(_template().render, script=script, **_content(loaded, findings))
    policy = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    bare = render(data={}, script_policy=policy)
    page = render(data=browser_data(loaded, PAGE_BYTES - _size(bare)), script_policy=policy)
    place = Path(out)
    atomic_write(place, page.encode("utf-8", "backslashreplace"))
    return place


def _template() -> Template:
    template = page_template(
        "entrostat.report",
        "page.html",
        share=_share,
        panel=_panel,
        yaml=lambda settings: yaml.safe_dump(dict(settings), sort_keys=False).rstrip(),
        nats=_nats,
    )
    template.environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return template


def _content(runs: Sequence[RunData], findings: Sequence[Sequence[Finding]] | None) -> dict[str, Any]:
    sections, left_out = _sections(runs)
    pairs = draw_pairs(PANELS, runs) if len(runs) == 2 else []
    return {
        "title": " · ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        "palette": PALETTE,
        "rows": [summarise(run) for run in runs],
        "names": [run.name for run in runs],
        "overview": _overview(runs) if len(runs) > 1 else [],
        "settings": differing_settings(runs) if 1 < len(runs) <= MOST_COMPARED else [],
        "difference": handed_over_difference(*runs) if len(runs) == 2 else None,
        "findings": _findings(runs, findings, sections, pairs),
        "pairs": pairs,
        "sections": sections,
        "left_out": left_out,
        "has_samples": any(run.sample_counts for run in runs),
    }


def _findings(
    runs: Sequence[RunData],
    findings: Sequence[Sequence[Finding]] | None,
    sections: Sequence[dict[str, Any]],
    pairs: Sequence[Pair],
) -> list[dict[str, Any]]:
    """Each run's name, findings, and the anchors of its figures by title; empty if there was no diagnosis."""
    drawn = [{drawing.title: drawing.anchor for drawing in section["drawings"]} for section in sections]
    if pairs:
        drawn = [{pair.title: pair.drawings[side].anchor for pair in pairs} for side in range(2)]
    drawn += [{} for _ in runs[len(drawn) :]]
    return [
        {"run": run.name, "findings": own, "figures": figures}
        for run, own, figures in zip(runs, findings or [], drawn, strict=False)
    ]


def _overview(runs: Sequence[RunData]) -> list[Drawing]:
    return [
        draw(
            "pass@1",
            "On the report split, one line per run. Dot: the checkpoint that a run rolled back to.",
            partial(pass_at_1_figure, runs),
            "overview-pass",
        ),
        draw(
            "Entropy",
            "Of the training tokens, nats per token.",
            partial(entropy_figure, runs),
            "overview-entropy",
        ),
    ]


def _sections(runs: Sequence[RunData]) -> tuple[list[dict[str, Any]], list[str]]:
    """The section of each run, and the names of the runs that do not fit into the page."""
    sections: list[dict[str, Any]] = []
    size = 0
    for index, run in enumerate(runs):
        section = _section(index, run, with_figures=len(runs) != 2)
        size += sum(_size((drawing.image or "") + drawing.data) for drawing in section["drawings"])
        size += sum(_size(completion.text) for task in section["tasks"] for completion in task.completions)
        if sections and size > SECTIONS_BYTES:
            return sections, [left.name for left in runs[index:]]
        sections.append(section)
    return sections, []


def _section(index: int, run: RunData, with_figures: bool) -> dict[str, Any]:
    panels = PANELS if with_figures else ()
    return {
        "anchor": f"run-{index}",
        "name": run.name,
        "seed": run.run.seed,
        "decisions": run.decisions,
        "drawings": [
            draw(panel.title, panel.caption, partial(draw_panel, panel, run), f"{index}-{number}")
            for number, panel in enumerate(panels)
        ],
        "tasks": side_by_side(run),
        "recipe": json.dumps(run.run.recipe, indent=2),
        "versions": ", ".join(f"{name} {version}" for name, version in run.run.versions.items()),
        "hashes": run.run.hashes,
    }


def _panel(finding: Finding) -> str | None:
    """The title of the figure that shows a finding; None if there is none."""
    panels = (METRICS[name].panel for name in finding.columns if name in METRICS)
    return next(filter(None, panels), None)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _nats(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the recipe whose value differs between runs, and its value in each."""

    key: str
    values: tuple[str, ...]


def differing_settings(runs: Sequence[RunData]) -> list[Setting]:
    """How the recipes, seeds and inputs of runs differ; different methods are compared by name only."""
    flat = [_flat({**run.run.recipe, "seed": run.run.seed, "inputs": _digests(run)}) for run in runs]
    shared = [key for key in flat[0] if key != "name" and all(key in recipe for recipe in flat)]
    settings = [Setting(key, tuple(recipe[key] for recipe in flat)) for key in shared]
    return [setting for setting in settings if len(set(setting.values)) > 1]


def handed_over_difference(first: RunData, second: RunData) -> Estimate | None:
    """pass@1 of what `second` hands over minus that of `first`, with an interval over the report tasks they share.

    None if the two share no task, or a run did not evaluate the checkpoint that it hands over.
    """
    counts = [_counts(run) for run in (first, second)]
    shared = [task for task in counts[0] if task in counts[1]]
    if not shared:
        return None
    before, after = ([pass_at_k(*own[task], 1) for task in shared] for own in counts)
    return paired_interval(after, before)


def _counts(run: RunData) -> dict[str, tuple[int, int]]:
    step = handed_over_step(run)
    lines = [line for line in run.evals if line["split"] == "report" and line["step"] == step]
    return {task: (n, c) for task, n, c in lines[-1]["results"]} if lines else {}


def _digests(run: RunData) -> dict[str, str]:
    return {name: digest[:12] for name, digest in run.run.hashes.items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and values as text; a method's key holds its name."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            own = {inner: each for inner, each in value.items() if inner != "name"}
            flat |= {f"{prefix}{key}": str(value["name"])} if "name" in value else {}
            flat |= _flat(own, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = "null" if value is None else str(value)
    return flat
