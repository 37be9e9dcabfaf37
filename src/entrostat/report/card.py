"""Weights that a run kept, as a model folder of their own, with a card made from the run's own record."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from entrostat.report.reading import read_run
from entrostat.runs import Run, Trajectory
from entrostat.runs.files import SEAL, RunError
from entrostat.runs.ownership import scratch


def model_card(folder: Path, kept: str, step: int, title: str) -> str:
    """Markdown with the header that model hubs read: what was trained from what, how, and what was measured.

    folder: the run's. kept, step: which of its weights, peak, end or start, and of which optimizer step.
    RunError: the folder is not a run's.
    """
    data = read_run(folder, title)
    recipe = data.run.recipe
    base = recipe.get("policy", {}).get("path", "embedded")
    header = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["entrostat", "rlvr"]}
    if "/" in base and not base.startswith((".", "/", "~")) and "@" not in base:
        header["base_model"] = base
    versions = ", ".join(f"{name} {version}" for name, version in data.run.versions.items())
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {title}",
        f"The {kept} (optimizer step {step}) of the run `{recipe.get('name', folder.name)}`, trained from `{base}` by "
        f"reinforcement learning with verifiable rewards ({versions}; seed {data.run.seed}).",
        *_measured(data.select, "select", "it chose the peak, so its figure there is flattered"),
        *_measured(data.report, "report", "no decision used it"),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(_plain(data.run), sort_keys=False)}```",
    ]
    return "\n\n".join(parts) + "\n"


def _measured(course: Trajectory | None, split: str, about: str) -> list[str]:
    """A table of pass@1 over the run on one split."""
    if course is None:
        return []
    rows = [f"| {step} | {value:.3f} |" for step, value in zip(course.steps, course.pass_at_1, strict=True)]
    return ["\n".join([f"## pass@1 on the {split} split ({about})", "", "| step | pass@1 |", "|---|---|", *rows])]


def _plain(run: Run) -> dict[str, object]:
    return {key: value for key, value in run.recipe.items() if value is not None}


def copy_model(checkpoint: Path, out: Path, card: str) -> None:
    """Copy the model's files into the new folder `out`, with the text of its card; never half a copy.

    RunError: `out` exists, or cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise RunError(f"{out}: exists already; give the name of a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = scratch(out.parent)
        made.mkdir()
        for file in sorted(checkpoint.iterdir()):
            if file.name != SEAL and file.is_file():
                shutil.copyfile(file, made / file.name)
        (made / "README.md").write_text(card, encoding="utf-8")
        made.rename(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); free space or choose another place") from error
