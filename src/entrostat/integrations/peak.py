"""Keeping a checkpoint folder where its trainer's rotation does not reach it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from entrostat.runs.ownership import is_ours, remove, scratch, seal, sweep


def keep(checkpoint: Path, target: Path) -> None:
    """Put the content of the folder `checkpoint` at `target`, replacing the content of an earlier call.

    By hard links, which need no disk space and no time; by copies if the file system has none. OSError: it cannot be
    read or kept, or `target` was not made here; the earlier content is then intact.
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
    """Raise FileExistsError if `target` has something that `keep` did not put there, or that was changed since."""
    if (target.exists() or target.is_symlink()) and not is_ours(target):
        raise FileExistsError(
            f"{target}: the peak is to be kept here, but this was not made by the watchdog; "
            "move it to another place, or choose another output folder"
        )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
