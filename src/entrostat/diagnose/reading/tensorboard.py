"""TensorBoard event folders, through the `tensorboard` library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entrostat.diagnose.reading.log import LogError, RawLog

PATTERN = "*tfevents*"


def read(path: Path) -> RawLog:
    """The scalars of a folder of event files, or of one. LogError: the library is missing."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise LogError(f"{path}: reading TensorBoard's events needs `pip install entrostat[tensorboard]`") from error
    rows: dict[int, dict[str, Any]] = {}
    notes = []
    folders = [path] if path.is_file() else sorted({file.parent for file in path.rglob(PATTERN)})
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        try:
            events.Reload()
            for tag in events.Tags()["scalars"]:
                for event in events.Scalars(tag):
                    rows.setdefault(event.step, {"step": event.step})[tag] = event.value
            for tag in events.Tags()["tensors"]:
                for event in events.Tensors(tag):
                    value = make_ndarray(event.tensor_proto)
                    if value.size == 1 and value.dtype.kind in "fiu":
                        rows.setdefault(event.step, {"step": event.step})[tag] = float(value)
        except Exception as error:  # a foreign parser over bytes that may be damaged: anything may come out of it
            notes.append(f"{folder.name}: damaged ({type(error).__name__}), read as far as it goes")
    return RawLog("TensorBoard", [rows[step] for step in sorted(rows)], notes=tuple(notes))
