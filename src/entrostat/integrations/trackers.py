"""A run's lines in a tracker of experiments: TensorBoard, Weights & Biases, MLflow, Comet, Aim, SwanLab, trackio.

    with Trackers(["wandb"], out, recipe.model_dump(mode="json")) as trackers:
        train(recipe, out, listener=trackers)

accelerate's trackers do the work; each library reads its own environment variables, as `wandb login` and `WANDB_MODE`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

from entrostat.campaign.single import AFTER_ROLL_BACK
from entrostat.diagnosis.reading.log import flatten
from entrostat.errors import EntrostatError
from entrostat.runs import Run
from entrostat.runs.files import atomic_write

Line = Mapping[str, Any]
PROJECT = "entrostat"
RESUMED = "trackers.json"  # in the run folder: by what name each tracker finds the run again
STEP = "optimizer_step"  # the horizontal axis in Weights & Biases, which accepts its own steps in ascending order only
SAMPLE = ("task", "outcome", "prompt", "completion")  # columns of the table of samples


class TrackerError(EntrostatError, RuntimeError):
    """A tracker that is not installed, or that cannot be started; the message names the extra or the reason."""


@dataclass(frozen=True)
class _Library:
    """How a tracker is started by accelerate.

    project: the environment variable that names the project. new, again: keyword arguments for a new run of a name in
    a folder, and for one that the tracker knows by its `identity`, which is read off the started run.
    """

    project: str | None
    new: Callable[[str, Path], dict[str, Any]]
    again: Callable[[str, Path], dict[str, Any]]
    identity: Callable[[Any], str]
    extra: str | None = None


def _comet_name(name: str, _: Path) -> dict[str, Any]:
    return {"experiment_config": import_module("comet_ml").ExperimentConfig(name=name)}


LIBRARIES: Mapping[str, _Library] = {
    "tensorboard": _Library(
        None,
        lambda _, run: {"logging_dir": run},
        lambda _, run: {"logging_dir": run},
        lambda writer: str(writer.log_dir),
    ),
    "wandb": _Library(
        "WANDB_PROJECT",
        lambda name, run: {"name": os.environ.get("WANDB_NAME", name), "dir": run},
        lambda known, run: {"id": known, "resume": "allow", "dir": run},
        lambda own: str(own.id),
    ),
    "mlflow": _Library(
        "MLFLOW_EXPERIMENT_NAME",
        lambda name, _: {"run_name": name},
        lambda known, _: {"run_id": known},
        lambda own: str(own.info.run_id),
    ),
    "comet_ml": _Library(
        "COMET_PROJECT_NAME",
        _comet_name,
        lambda known, _: {"experiment_key": known, "mode": "get_or_create"},
        lambda own: str(own.get_key()),
        extra="comet",
    ),
    "aim": _Library(None, lambda *_: {}, lambda known, _: {"run_hash": known}, lambda own: str(own.hash)),
    "swanlab": _Library(
        "SWANLAB_PROJ_NAME",
        lambda name, _: {"name": name},
        lambda known, _: {"id": known, "resume": "allow"},
        lambda own: str(own.id),
    ),
    "trackio": _Library(
        None,
        lambda name, _: {"name": name, "embed": False},
        lambda known, _: {"name": known, "resume": "allow", "embed": False},
        lambda own: str(own.name),
    ),
}


class Trackers:
    """A listener of the engine that logs each line to every tracker named; use it in a `with` statement.

    folder: the run's. config: what the trackers show as its settings, logged when a run is new. project: if left out,
    what the tracker's environment variable says, else `entrostat`.

    A tracker is started with the first line, as the run's folder exists from then on; one that is resumed continues
    the same run. A part after a roll-back is a run of its own. Weights & Biases also gets a table of each step's
    samples. A line that a tracker refuses is warned of once and does not stop the run.
    ValueError: an unknown tracker. TrackerError: a library is missing, at once; a tracker cannot be started, with the
    first line.
    """

    def __init__(
        self, names: Sequence[str], folder: str | Path, config: Line | None = None, project: str | None = None
    ) -> None:
        for name in names:
            _refuse_missing(name)
        self.names, self.folder, self.config, self.project = names, Path(folder), config or {}, project
        self._started: Path | None = None
        self._trackers: dict[str, Any] = {}
        self._refused: set[str] = set()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, line: Line) -> None:
        """Log the numbers of a step line or of an evaluation line at its step."""
        run = self.folder / AFTER_ROLL_BACK
        self._start(run if (run / "run.json").exists() else self.folder)
        for name, tracker in self._trackers.items():
            try:
                _log(name, tracker, line)
                if hasattr(tracker, "log_table"):
                    _log_samples(tracker, line, self._started or self.folder)
            except Exception as error:
                if name not in self._refused:
                    warnings.warn(f"{name} refuses the line of step {line['step']}: {error}", stacklevel=2)
                self._refused.add(name)

    def close(self) -> None:
        """End the trackers' runs, which sends what is left."""
        for tracker in self._trackers.values():
            tracker.finish()
        self._trackers, self._started = {}, None

    def _start(self, run: Path) -> None:
        if run == self._started or not self.names:
            return
        self.close()
        run.mkdir(parents=True, exist_ok=True)
        file = run / RESUMED
        known: dict[str, str] = json.loads(file.read_bytes()) if file.exists() else {}
        for name in self.names:
            try:
                tracker = self._tracker(name, run, known.get(name))
                tracker.start()
                if name == "wandb":
                    tracker.tracker.define_metric("*", step_metric=STEP)
                if name not in known:
                    tracker.store_init_configuration(plain_settings(self.config))
            except Exception as error:
                raise TrackerError(
                    f"{name} cannot be started: {error}; log in or set what its environment variables ask for, or "
                    "leave this tracker out: the same command then resumes the run"
                ) from error
            self._trackers[name] = tracker
            known[name] = LIBRARIES[name].identity(tracker.tracker)
            atomic_write(file, json.dumps(known, indent=1).encode() + b"\n")
        self._started = run

    def _tracker(self, name: str, run: Path, identity: str | None) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # accelerate's trackers log through it
        library = LIBRARIES[name]
        title = f"{self.folder.name}-{AFTER_ROLL_BACK}" if run != self.folder else self.folder.resolve().name
        settings = library.again(identity, run) if identity else library.new(title, run)
        project = self.project or (os.environ.get(library.project) if library.project else None) or PROJECT
        if name == "aim":
            settings["experiment"] = project
        called = {"tensorboard": "tensorboard", "aim": title}.get(name, project)  # the others are called by project
        return LOGGER_TYPE_TO_CLASS[name](called, **settings)


def scalars(line: Line) -> dict[str, float]:
    """The numbers of a line by name: `entropy`, `regions/E1/flow`; of an evaluation `select/pass_at/1`."""
    prefix = f"{line['split']}/" if "split" in line else ""
    flat = flatten({key: value for key, value in line.items() if key not in ("step", "at", "results")})
    return {
        prefix + name.replace(".", "/"): float(value)
        for name, value in flat.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    }


def plain_settings(config: Line) -> dict[str, Any]:
    """A recipe's settings by dotted names; what is no number, word or truth value is written as JSON."""
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in flatten(config).items()
    }


def _log(name: str, tracker: Any, line: Line) -> None:
    values = scalars(line)
    if name == "wandb":
        tracker.log({**values, STEP: line["step"]})
    else:
        tracker.log(values, step=line["step"])


def _log_samples(tracker: Any, line: Line, folder: Path) -> None:
    """The samples that the run keeps of this line's step and split, as a table."""
    split = line.get("split", "train")
    samples = Run.open(folder).iterate_samples(line["step"], split)
    if rows := [[sample[column] for column in SAMPLE] for sample in samples]:
        tracker.log_table(f"samples/{split}", columns=list(SAMPLE), data=rows)


def _refuse_missing(name: str) -> None:
    if name not in LIBRARIES:
        raise ValueError(f"tracker is {name!r}; choose one of {', '.join(LIBRARIES)}")
    extra = LIBRARIES[name].extra or name
    for package in ("accelerate", name):
        if find_spec(package) is None:
            raise TrackerError(f"tracker {name}: {package} is not installed; pip install 'entrostat[{extra}]'")
