"""TensorBoard event folders, through the `tensorboard` library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from entrostat.diagnosis.reading.errors import MissingLibraryError
from entrostat.diagnosis.reading.log import RawLog

PATTERN = "*tfevents*"


PARTS_OF_A_RUN = frozenset({"train", "training", "eval", "validation", "val", "test"})


def read(path: Path) -> RawLog:
    """The scalars of an event file, or of a folder's last run by name. MissingLibraryError: no tensorboard."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise MissingLibraryError(
            f"{path}: reading TensorBoard's events needs `pip install entrostat[tensorboard]`"
        ) from error
    rows: dict[int, dict[str, Any]] = {}
    run, folders, notes = (path, [path], ()) if path.is_file() else newest_run(path)
    for folder in folders:
        prefix = f"{folder.name}/" if folder != run and folder.name in PARTS_OF_A_RUN else ""
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        try:
            events.Reload()
            for tag in events.Tags()["scalars"]:
                for event in events.Scalars(tag):
                    rows.setdefault(event.step, {"step": event.step})[prefix + tag] = event.value
            for tag in events.Tags()["tensors"]:
                for event in events.Tensors(tag):
                    value = make_ndarray(event.tensor_proto)
                    if value.size == 1 and value.dtype.kind in "fiu":
                        rows.setdefault(event.step, {"step": event.step})[prefix + tag] = float(value)
        except Exception as error:  # a foreign parser over bytes that may be damaged: anything may come out of it
            notes = (*notes, f"{folder.name}: damaged ({type(error).__name__}), read as far as it goes")
    file = None if run == path else str(run.relative_to(path))
    return RawLog("TensorBoard", [rows[step] for step in sorted(rows)], notes=notes, file=file)


def newest_run(path: Path) -> tuple[Path, list[Path], tuple[str, ...]]:
    """The newest run below a folder by name, its folders with events, and a note on the others.

    A run is a folder with event files together with all below it, and so is one whose parts are called train and eval.
    """
    folders = sorted({file.parent for file in path.rglob(PATTERN)}, key=natural)
    roots: dict[Path, list[Path]] = {}
    for folder in folders:
        home = folder.parent if folder.name in PARTS_OF_A_RUN and folder != path else folder
        root = next((root for root in roots if root in (home, *home.parents)), home)
        roots.setdefault(root, []).append(folder)
    run = max(roots, key=natural)
    others = [str(root.relative_to(path)) for root in roots if root != run]
    if not others:
        return run, roots[run], ()
    shown = ", ".join(others[-5:]) + (", ..." if len(others) > 5 else "")
    return (
        run,
        roots[run],
        (f"{len(roots)} runs: {run.relative_to(path)} is read, the last by name; name another: {shown}",),
    )


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts `run-10` after `run-9`."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", str(path)) if part]
