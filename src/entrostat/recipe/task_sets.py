"""Task sets by name, and their splits as a recipe requests them."""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import cast

from entrostat.recipe.sections import TasksRecipe
from entrostat.registry import UnknownMethodError
from entrostat.tasks import TaskError, listcraft
from entrostat.tasks.sources import AnyTask, split, task_source, unique


@dataclass(frozen=True, slots=True)
class TaskSplits:
    """The tasks of a run: for training, for choosing the peak, for the report, and of a kind that is not trained on."""

    train: list[AnyTask]
    select: list[AnyTask]
    report: list[AnyTask]
    ood: list[AnyTask] = field(default_factory=list)

    @classmethod
    def of(cls, wanted: TasksRecipe) -> TaskSplits:
        """The tasks that a recipe names. Raises TaskError as task_splits does."""
        return cls(**task_splits(wanted))

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits that no decision reads."""
        return ("report", "ood") if self.ood else ("report",)

    def hashes(self) -> dict[str, str]:
        """A digest of each split's content."""
        splits = {place.name: getattr(self, place.name) for place in fields(self)}
        return {name: _digest(tasks) for name, tasks in splits.items() if tasks}


def _digest(tasks: Sequence[AnyTask]) -> str:
    return hashlib.sha256("".join(task.content_hash() for task in tasks).encode()).hexdigest()


def task_splits(wanted: TasksRecipe) -> dict[str, list[AnyTask]]:
    """The train, select and report tasks of a recipe, which never overlap; for listcraft also the `ood` tasks.

    A family without splits of its own is split by content and seed.
    Raises TaskError if a split has too few tasks.
    """
    sizes = {"train": wanted.train, "select": wanted.select, "report": wanted.report}
    if wanted.family == "listcraft":
        splits = {name: list(_listcraft(name, size, wanted)) for name, size in sizes.items()}
        if wanted.ood:
            splits["ood"] = list(listcraft.tasks("report", wanted.ood, wanted.seed, wanted.ood_levels))
        return splits
    tasks = unique(load_task_set(wanted.family, Path(wanted.data) if wanted.data else None))
    whole = sum(sizes.values())
    splits = split(tasks, {name: size / whole for name, size in sizes.items()}, wanted.seed)
    for name, size in sizes.items():
        if len(splits[name]) < size:
            raise TaskError(
                f"tasks.{name}: got {size}, but this split of {wanted.family} has {len(splits[name])} of its "
                f"{len(tasks)} tasks; request fewer"
            )
    if wanted.train_seed is not None:
        random.Random(wanted.train_seed).shuffle(splits["train"])
    return {name: splits[name][:size] for name, size in sizes.items()}


def _listcraft(name: str, size: int, wanted: TasksRecipe) -> Sequence[AnyTask]:
    seed = wanted.train_seed if name == "train" and wanted.train_seed is not None else wanted.seed
    return listcraft.tasks(cast(listcraft.Split, name), size, seed, wanted.levels)


def load_task_set(name: str, path: str | Path | None = None) -> list[AnyTask]:
    """The tasks of a set: from the file `path`, or from the package that contains them.

    Raises TaskError for an unknown name, and for a set that no package contains if no path is given.
    """
    try:
        source = task_source.find(name)
    except UnknownMethodError as error:
        raise TaskError(f"tasks: {error}") from None
    takes = inspect.signature(source).parameters.get("path")
    if path is not None:
        if takes is None:
            raise TaskError(f"data: {name!r} is generated and reads no file; remove --data")
        return list(source(path))
    if takes is not None and takes.default is inspect.Parameter.empty:
        raise TaskError(f"data: no installed package contains {name!r}; give its file with --data")
    return list(source())
