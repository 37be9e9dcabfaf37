"""Keeping a checkpoint folder where its trainer's rotation does not reach it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from entrostat.runs.ownership import is_ours, remove, scratch, seal, sweep


def keep(checkpoint: Path, target: Path) -> None:
    """Put what the folder `checkpoint` holds at `target`, in place of what an earlier call put there.

    By hard links: no second copy on the disk, and no time; by copies where the file system has none. OSError: it cannot
    be read or kept, or `target` is not of our making; what was there before is then still there.
    """
    refuse_foreign(target)
    if target.parent.is_dir():
        sweep(target.parent)
    fresh = scratch(target.parent)
    try:
        shutil.copytree(checkpoint, fresh, copy_function=_link)
        seal(fresh)
        remove(target)
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def refuse_foreign(target: Path) -> None:
    """FileExistsError: there is something at `target` that `keep` did not put there, or that was changed since."""
    if (target.exists() or target.is_symlink()) and not is_ours(target):
        raise FileExistsError(
            f"{target}: is in the way of the peak that is to be kept there, and was not made by the watchdog; "
            "move it to another place, or choose another output folder"
        )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
