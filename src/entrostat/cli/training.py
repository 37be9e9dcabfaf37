"""`demo` and `train`: campaigns of a recipe, with a line of progress a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from entrostat.cli.progress import progress
from entrostat.cli.reporting import show_runs
from entrostat.cli.screen import AsJson, Overrides, note_inert_control, refuse_missing, status


class TrackerName(str, Enum):
    """The trackers by accelerate's names for them."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"
    COMET_ML = "comet_ml"
    AIM = "aim"
    SWANLAB = "swanlab"
    TRACKIO = "trackio"


PAGES = {"report": ("reinforce", "early-stop", "grpo-id"), "entropy": ("grpo", "on-a-curve")}


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the two pages.")] = Path("runs/demo"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train five small policies: a collapse, the same stopped in time, GRPO at a lower rate; entropy on a curve.

    The first three write report.html. The last two, GRPO alone and with its entropy on a drawn curve, take seconds and
    write entropy.html. With --json, one object for each page.

    Example: entrostat demo --out runs/demo --set seed=1
    """
    from importlib import resources

    from entrostat.recipe import load_recipe

    folder = resources.files("entrostat.assets") / "demo"
    pages = {
        page: [load_recipe(Path(str(folder / f"{name}.yaml")), overrides or ()) for name in names]
        for page, names in PAGES.items()
    }
    for page, recipes in pages.items():
        runs = [folder for recipe in recipes for folder in _train(recipe, out / recipe.name)]
        show_runs(runs, out / f"{page}.html", as_json)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME if left out.")] = None,
    overrides: Overrides = None,
    track: Annotated[list[TrackerName] | None, typer.Option(help="Also log to this tracker.")] = None,
    project: Annotated[
        str | None, typer.Option(help="The trackers' project; what their environment says if left out, else entrostat.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one campaign of a recipe; the same command again resumes a run that was killed.

    `entrostat init grpo --out grpo.yaml` writes a recipe to begin with.

    Example: entrostat train grpo.yaml --out runs/grpo --set seed=3
    """
    refuse_missing(recipe, "give the path of a YAML recipe")
    from entrostat.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    runs = _train(loaded, out or Path("runs") / loaded.name, [tracker.value for tracker in track or ()], project)
    show_runs(runs, runs[0] / "report.html", as_json)


def _train(recipe: Any, out: Path, track: Sequence[str] = (), project: str | None = None) -> list[Path]:
    """Train, and return the run's folder, with that of what followed a roll-back if there was one."""
    from entrostat.campaign.single import AFTER_ROLL_BACK
    from entrostat.engine.train import extension_note, quieten_libraries
    from entrostat.engine.train import train as train_recipe
    from entrostat.integrations.trackers import Trackers

    quieten_libraries()
    note_inert_control(recipe)
    if note := extension_note(recipe, out):
        status.print(f"note: {note}", style="yellow", markup=False)
    with Trackers(track, out, recipe.model_dump(mode="json"), project) as trackers, _live_status(recipe) as show:

        def listen(line: dict[str, Any]) -> None:
            show(line)
            trackers(line)

        train_recipe(recipe, out, listen)
    return [folder for folder in (out, out / AFTER_ROLL_BACK) if folder.exists()]


@contextmanager
def _live_status(recipe: Any) -> Iterator[Any]:
    """A listener that shows how far a run is, with its last entropy and pass@k."""
    shown: dict[str, float | None] = {}
    with progress(recipe.name, "step") as tell:

        def listen(line: dict[str, Any]) -> None:
            if "split" in line:
                k, value = next(iter(line["pass_at"].items()))
                shown[f"pass@{k} {line['split']}"] = value
            else:
                shown["entropy"] = line["entropy"]
            figures = [f"{name} {value:.2f}" for name, value in shown.items() if value is not None]
            tell(line.get("at", line["step"]), recipe.campaign.steps, figures)

        yield listen
