"""`RUN@peak`: the weights that a run keeps, by the run's folder and the name of what is kept."""

from __future__ import annotations

from pathlib import Path

from entrostat.campaign.checkpoints import END, PEAK, START, TAGS_FILE, CheckpointError, read_tags, verify
from entrostat.campaign.engine import Checkpoint

KEPT = (PEAK, END, START)


def is_kept(name: str | Path) -> bool:
    """Whether a name is of the form RUN@peak, RUN@end or RUN@start."""
    return str(name).rpartition("@")[2] in KEPT and "@" in str(name)


def kept_checkpoint(name: str | Path) -> Checkpoint:
    """The checkpoint of `RUN@peak`, `RUN@end` or `RUN@start`, its content compared with its digest.

    Raises CheckpointError: RUN is no run's folder, keeps nothing of that name (an unfinished run has no end), or what
    it keeps is missing or damaged.
    """
    run, _, tag = str(name).rpartition("@")
    folder = Path(run).expanduser() / "checkpoints"
    if not (folder / TAGS_FILE).is_file():
        raise CheckpointError(f"{name}: {run or '.'} is no run folder with checkpoints; give the folder of a run")
    tags = read_tags(folder)
    if tag not in tags:
        there = [f"{run}@{kept}" for kept in KEPT if kept in tags]
        raise CheckpointError(f"{name}: the run keeps no {tag}; there is {' and '.join(there) or 'nothing yet'}")
    verify(tags[tag])
    return tags[tag]


def model_source(name: str | Path) -> str | Path:
    """The folder of a name such as `RUN@peak`; any other name as it is. Raises CheckpointError."""
    return kept_checkpoint(name).path if is_kept(name) else name
