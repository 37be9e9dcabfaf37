"""The checkpoints that a campaign keeps: start, peak, end, the controller's, and those of a resume point."""

from __future__ import annotations

from entrostat.campaign.engine import Checkpoint
from entrostat.engine.checkpoint import CheckpointStore

RESUME = "resume"
REMEMBERED = ("peak", "held")  # by a resume point


class Keeper:
    """The kept checkpoints of one campaign, as tags of its store.

    start: the first weights. peak: the best so far. held: the step that the controller keeps. end: the last.
    A resume point also tags its current peak and held as `resume-<tag>`, so that a campaign that resumes there has the
    same checkpoints again.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        tags = store.tags()
        self.resume = tags.get(RESUME)
        self._at_resume = {tag: kept for tag, kept in tags.items() if tag.startswith(RESUME)}
        self._tags: dict[str, Checkpoint] = {tag: tags[tag] for tag in ("start", "end") if tag in tags}
        self._tags |= {tag: tags[f"{RESUME}-{tag}"] for tag in REMEMBERED if f"{RESUME}-{tag}" in tags}

    def __getitem__(self, tag: str) -> Checkpoint:
        """The checkpoint of a tag."""
        return self._tags[tag]

    @property
    def steps(self) -> list[int]:
        """Steps whose weights are kept."""
        return sorted({checkpoint.step for checkpoint in self._tags.values()})

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a kept step. ValueError: it is no longer kept."""
        for kept in self._tags.values():
            if kept.step == step:
                return kept
        raise ValueError(f"step is {step}, but kept are {self.steps}; order a step kept while it is the last")

    def keep(self, **tags: Checkpoint) -> None:
        """Set tags of checkpoints; a checkpoint that loses its last tag is deleted."""
        self._tags |= tags
        self._retag()

    def save_resume_point(self, checkpoint: Checkpoint) -> None:
        """Make this checkpoint the resume point, together with the checkpoints that are kept now."""
        now = {f"{RESUME}-{tag}": self._tags[tag] for tag in REMEMBERED if tag in self._tags}
        self._at_resume = {RESUME: checkpoint, **now}
        self._retag()

    def _retag(self) -> None:
        self.store.retag({**self._tags, **self._at_resume})
