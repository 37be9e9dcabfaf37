"""The checkpoints of a campaign: named by their content, written atomically, found by tag.

    checkpoints/<digest>/   weights in Hugging Face format, or a resume point: what a trainer needs to resume
    checkpoints/tags.json   tag -> digest and step

    start        the first weights
    peak         the best so far on the select split, or the step that the controller chose
    confirmed    the peak, where the controller chose it
    held         the step that the controller keeps
    end          the last weights; set when the campaign is over
    resume       the last resume point; resume-<tag>: what had a tag at that moment
    extend       the same of a campaign that used all its steps, so that it can be given more

A tag moves only after the folder it names is completely on disk, so a kill at any moment leaves the old or the new.
A folder that is not ours (`entrostat.runs.ownership`) is never deleted.
`RUN@peak` names the weights that a run keeps: the run's folder and a tag, `start`, `peak` or `end`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from entrostat.campaign.engine import Checkpoint
from entrostat.errors import EntrostatError
from entrostat.runs import RunError
from entrostat.runs.files import atomic_write, folder_digest, sync
from entrostat.runs.ownership import digest, is_digest, remove_digests, scratch, seal, sweep, whole_number

START, PEAK, CONFIRMED, HELD, END, RESUME, EXTEND = "start", "peak", "confirmed", "held", "end", "resume", "extend"
TAGS_FILE = "tags.json"
STATE_FILE = "state.json"  # in a resume point
OLDER = ("finished.json", "step-000000")  # in the checkpoints/ of older versions' campaigns of TRL and verl

Write = Callable[[Path], None]  # makes the folder that it is given


class CheckpointError(EntrostatError, RuntimeError):
    """A checkpoint that cannot be written or read; earlier checkpoints are intact."""


class CheckpointStore:
    """The checkpoints in one folder, by digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)

    def save(self, write: Write, step: int) -> Checkpoint:
        """Keep what `write` puts into the new folder that it is given, as the checkpoint of `step`.

        CheckpointError: the disk refuses; no earlier checkpoint is changed.
        """
        temporary = scratch(self.folder)
        try:
            write(temporary)
            final = self.folder / folder_digest(temporary)
            if final.exists():
                shutil.rmtree(temporary)
            else:
                seal(temporary)
                _flush(temporary)
                temporary.rename(final)
                sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) else None
            raise CheckpointError(
                f"checkpoint of step {step}: {self.folder} cannot be written ({reason or error}); "
                "free space or fix its permissions and start the same command again, which resumes the run"
            ) from error
        return Checkpoint(path=final, step=step)

    def tags(self) -> dict[str, Checkpoint]:
        """Every tagged checkpoint. CheckpointError: the file is damaged, or names what is not a checkpoint."""
        return read_tags(self.folder)

    def retag(self, tags: Mapping[str, Checkpoint]) -> None:
        """Replace all tags at once, and delete every checkpoint of ours that no tag names."""
        content = {tag: {"digest": kept.path.name, "step": kept.step} for tag, kept in sorted(tags.items())}
        atomic_write(self.folder / TAGS_FILE, json.dumps(content, indent=1).encode() + b"\n")
        link_kept(self.folder.parent, tags)
        remove_digests(self.folder, keep={kept.path.name for kept in tags.values()})


def read_tags(folder: Path) -> dict[str, Checkpoint]:
    """Every tagged checkpoint of a folder, which is only read. CheckpointError as `CheckpointStore.tags`."""
    file = folder / TAGS_FILE
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            tag: Checkpoint(
                folder / digest(entry["digest"], f"{tag}.digest"), whole_number(entry["step"], f"{tag}.step")
            )
            for tag, entry in content.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RunError) as error:
        raise CheckpointError(f"{file}: not a tag file ({error}); restore it or start in a new folder") from error


def link_kept(run: Path, tags: Mapping[str, Checkpoint]) -> None:
    """Let RUN/peak and RUN/end lead to the weights of these tags, for people; the links of other tags go.

    Anything else of these names, and a folder that is not a run's, stay as they are.
    """
    if not (run / "run.json").exists():
        return
    for tag in (PEAK, END):
        link = run / tag
        if link.exists() and not link.is_symlink():
            continue
        link.unlink(missing_ok=True)
        if tag in tags:
            link.symlink_to(Path("checkpoints") / tags[tag].path.name)


class Keeper:
    """Which checkpoints of a campaign are kept, as tags of its store.

    A resume point records which checkpoints had a tag when it was written; a campaign resumed from it has the same
    tags.
    RunError: the folder is one of TRL's or verl's campaigns of an older version.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._tags = store.tags()
        if not self._tags and any((store.folder / name).exists() for name in OLDER):
            raise RunError(
                f"{store.folder}: is of a campaign of an older version, which this version cannot resume; finish it "
                "with that version, or delete the campaign's folder to run it anew"
            )
        self._at_resume = {tag: self._tags.pop(tag) for tag in [*self._tags] if tag.startswith(RESUME)}
        self._to_extend = {tag: self._tags.pop(tag) for tag in [*self._tags] if tag.startswith(EXTEND)}

    def __getitem__(self, tag: str) -> Checkpoint:
        """The checkpoint of a tag. CheckpointError: there is none."""
        if tag not in self._tags:
            file = self.store.folder / TAGS_FILE
            raise CheckpointError(f"{file}: {tag!r} is missing; restore the file or start in a new folder")
        return self._tags[tag]

    @property
    def resume(self) -> Checkpoint | None:
        """The last resume point."""
        return self._at_resume.get(RESUME)

    @property
    def finished(self) -> bool:
        """Whether the campaign is over. Older versions set `end` before that, and a last resume point with it."""
        return END in self._tags and (self.resume is None or self.resume.step == self._tags[END].step)

    @property
    def confirmed(self) -> int | None:
        """The step that the controller chose as the peak. Older versions wrote it into the last resume point."""
        if self.resume is not None and (file := self.resume.path / STATE_FILE).exists():
            step: int | None = json.loads(file.read_bytes()).get(CONFIRMED)
            return step
        return self._tags[CONFIRMED].step if CONFIRMED in self._tags else None

    @property
    def steps(self) -> list[int]:
        """Steps whose weights are kept."""
        return sorted({checkpoint.step for checkpoint in self._tags.values()})

    @property
    def needed(self) -> set[int]:
        """Steps whose weights are kept now, or are needed after a return to the resume point."""
        return {checkpoint.step for checkpoint in (*self._tags.values(), *self._at_resume.values())}

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a kept step. ValueError: it is not, or no longer, kept."""
        for kept in self._tags.values():
            if kept.step == step:
                return kept
        raise ValueError(f"step is {step}, but kept are {self.steps}; order a step kept while it is the last")

    def keep(self, **tags: Checkpoint) -> None:
        """Set tags of checkpoints; a checkpoint that loses its last tag is deleted."""
        self._tags |= tags
        self._retag()

    def save_resume_point(self, write: Write, step: int) -> None:
        """Make what `write` writes the resume point, together with the checkpoints that are kept now."""
        now = {f"{RESUME}-{tag}": self._tags[tag] for tag in (PEAK, HELD) if tag in self._tags}
        self._at_resume = {RESUME: self.store.save(write, step), **now}
        self._retag()

    def return_to(self, step: int | None) -> None:
        """Restore the tags that were set when `step` was done; None: no tags.

        step: that of the resume point, or a later one, of which the trainer has a checkpoint of its own that a kill
        left without a resume point of ours: then nothing has changed since. CheckpointError: the start is not tagged.
        """
        if step is None:
            self._tags, self._at_resume, self._to_extend = {}, {}, {}
            return
        start = self[START]
        if self.resume is not None and self.resume.step == step:
            then = {tag.removeprefix(f"{RESUME}-"): kept for tag, kept in self._at_resume.items() if tag != RESUME}
            self._tags = {START: start, **then}

    def settle(self, end: Checkpoint, confirmed: bool, extendable: bool = False) -> None:
        """The campaign is over: keep the start, the peak and the end, and its resume point if it is extendable."""
        self._tags = {START: self[START], PEAK: self[PEAK], END: end}
        if confirmed:
            self._tags[CONFIRMED] = self[PEAK]
        if extendable:
            self._to_extend = {EXTEND + tag.removeprefix(RESUME): kept for tag, kept in self._at_resume.items()}
        self._at_resume = {}
        self._retag()

    def reopen(self) -> None:
        """A campaign that was over continues from its resume point. CheckpointError: it has no start."""
        if self._to_extend:
            self._at_resume = {RESUME + tag.removeprefix(EXTEND): kept for tag, kept in self._to_extend.items()}
            self._to_extend = {}
            self.return_to(self._at_resume[RESUME].step)
            self._retag()

    def _retag(self) -> None:
        self.store.retag({**self._tags, **self._at_resume, **self._to_extend})


def verify(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if the folder's name is a digest, and it is missing or its content has another digest.

    A folder with any other name, such as a user's own model, is accepted as it is.
    """
    if not is_digest(checkpoint.path.name):
        return
    if not checkpoint.path.is_dir():
        raise CheckpointError(f"{checkpoint.path}: the checkpoint of step {checkpoint.step} is missing; restore it")
    actual = folder_digest(checkpoint.path)
    if actual != checkpoint.path.name:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint of step {checkpoint.step} is corrupt (its content hashes to {actual}); "
            "restore it from a copy or start in a new folder"
        )


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
    sync(folder)


KEPT = (PEAK, END, START)


def is_kept(name: str | Path) -> bool:
    """Whether a name is of the form RUN@peak, RUN@end or RUN@start."""
    return str(name).rpartition("@")[2] in KEPT and "@" in str(name)


def kept_checkpoint(name: str | Path) -> Checkpoint:
    """The checkpoint of `RUN@peak`, `RUN@end` or `RUN@start`, its content compared with its digest.

    Raises CheckpointError: RUN is not a run's folder, keeps nothing of that name (an unfinished run has no end), or
    what it keeps is missing or damaged.
    """
    run, _, tag = str(name).rpartition("@")
    folder = Path(run).expanduser() / "checkpoints"
    if not (folder / TAGS_FILE).is_file():
        raise CheckpointError(f"{name}: {run or '.'} is not a run folder with checkpoints; give the folder of a run")
    tags = read_tags(folder)
    if tag not in tags:
        there = [f"{run}@{kept}" for kept in KEPT if kept in tags]
        raise CheckpointError(f"{name}: the run keeps no {tag}; there is {' and '.join(there) or 'nothing yet'}")
    verify(tags[tag])
    return tags[tag]


def model_source(name: str | Path) -> str | Path:
    """The folder of a name such as `RUN@peak`; any other name as it is. Raises CheckpointError."""
    return kept_checkpoint(name).path if is_kept(name) else name
