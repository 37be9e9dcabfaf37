"""Task sets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from entrostat.tasks import TaskError, listcraft
from entrostat.tasks.sources import AnyTask, apps, humaneval, livecodebench, mbpp, tasks_from_jsonl

FROM_FILES: Mapping[str, Callable[[Path], Sequence[AnyTask]]] = {
    "humaneval": humaneval,
    "mbpp": mbpp,
    "apps": apps,
    "livecodebench": livecodebench,
    "jsonl": tasks_from_jsonl,
}
FROM_PACKAGES: Mapping[str, Callable[[], Sequence[AnyTask]]] = {
    "humaneval": humaneval,
    "listcraft": lambda: listcraft.tasks("report", 100),
}
TASK_SETS = tuple({**FROM_PACKAGES, **FROM_FILES})


def load_task_set(name: str, path: Path | None = None) -> list[AnyTask]:
    """The tasks of a set: from the file `path`, or from the package that carries them.

    Raises TaskError for an unknown name, and for a set that no package carries when no path is given.
    """
    if name not in TASK_SETS:
        raise TaskError(f"tasks: got {name!r}; choose one of {', '.join(TASK_SETS)}")
    if path is not None:
        if name not in FROM_FILES:
            raise TaskError(f"data: {name!r} is generated, it reads no file; leave --data out")
        return list(FROM_FILES[name](path))
    if name not in FROM_PACKAGES:
        raise TaskError(f"data: no package carries {name!r}; give its file with --data")
    return list(FROM_PACKAGES[name]())
