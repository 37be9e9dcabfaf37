"""Lines of the embedded engine to TensorBoard, Weights & Biases and trackio, by their own libraries.

Each is a listener of the engine: `train(recipe, out, listener=TensorBoard(out))`. Call `close` at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Protocol

from entrostat.diagnosis.reading.log import flatten
from entrostat.errors import EntrostatError

Line = Mapping[str, Any]


class TrackerError(EntrostatError, RuntimeError):
    """A tracker whose library is missing; the message names the extra to install."""


class Tracker(Protocol):
    """A listener that the engine calls with each line; `close` is called at the end."""

    def __call__(self, line: dict[str, Any]) -> None:
        """Log a step line or an evaluation line."""

    def close(self) -> None:
        """Flush the remaining lines."""


def scalars(line: Line) -> dict[str, float]:
    """The numbers of a line by name: `entropy`, `regions/E1/flow`; of an evaluation `select/pass_at/1`."""
    prefix = f"{line['split']}/" if "split" in line else ""
    flat = flatten({key: value for key, value in line.items() if key not in ("step", "results")})
    return {
        prefix + name.replace(".", "/"): float(value)
        for name, value in flat.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    }


class TensorBoard:
    """Event files in `folder`/tensorboard. TrackerError: `tensorboard` is missing."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        self._writer = SummaryWriter(str(Path(folder) / "tensorboard"))

    def __call__(self, line: dict[str, Any]) -> None:
        """Write the line's numbers at its step."""
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """An offline run in `folder`/wandb, which `wandb sync` can upload later; other settings by the
    library's own environment variables. TrackerError: `wandb` is missing. ValueError: an unknown mode."""

    def __init__(self, folder: str | Path, mode: Literal["online", "offline"] = "offline") -> None:
        if mode not in ("online", "offline"):
            raise ValueError(f"mode is {mode!r}; give 'online' or 'offline'")
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project="entrostat", name=place.name, dir=str(place), mode=mode)

    def __call__(self, line: dict[str, Any]) -> None:
        """Log the line's numbers at its step."""
        self._run.log(scalars(line), step=line["step"])

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Trackio:
    """A run of the local project `entrostat`. TrackerError: `trackio` is missing."""

    def __init__(self, folder: str | Path) -> None:
        try:
            import trackio
        except ImportError as error:
            raise _missing("trackio") from error
        self._library = trackio
        trackio.init(project="entrostat", name=Path(folder).name, resume="allow", embed=False)

    def __call__(self, line: dict[str, Any]) -> None:
        """Log the line's numbers at its step."""
        self._library.log(scalars(line), step=line["step"])

    def close(self) -> None:
        """End the run."""
        self._library.finish()


TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases] | type[Trackio]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def _missing(extra: str) -> TrackerError:
    return TrackerError(f"{extra} is not installed; pip install entrostat[{extra}]")
