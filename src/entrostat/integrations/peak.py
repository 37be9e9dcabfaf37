"""Keeping a checkpoint folder where its trainer's rotation does not reach it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def keep(checkpoint: Path, target: Path) -> None:
    """Put what the folder `checkpoint` holds at `target`, in place of what is there.

    By hard links: no second copy on the disk, and no time; by copies where the file system has none. OSError: it cannot
    be read or kept; what was there before is then still there.
    """
    fresh = target.with_name(f".{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(checkpoint, fresh, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
