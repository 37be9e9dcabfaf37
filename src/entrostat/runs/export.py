"""A copy of a checkpoint as a plain model folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from entrostat.runs.files import SEAL, RunError
from entrostat.runs.ownership import scratch


def copy_model(checkpoint: Path, out: Path, card: str) -> None:
    """Copy the model's files into the new folder `out`, with the text of its card; there is no half a copy.

    RunError: `out` exists, or cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise RunError(f"{out}: exists already; give the name of a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = scratch(out.parent)
        made.mkdir()
        for file in sorted(checkpoint.iterdir()):
            if file.name != SEAL and file.is_file():
                shutil.copyfile(file, made / file.name)
        (made / "README.md").write_text(card, encoding="utf-8")
        made.rename(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); free space or choose another place") from error
