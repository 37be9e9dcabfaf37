"""Which checkpoints of a campaign are kept: start, peak, end, the last steps, and those of a resume point."""

from __future__ import annotations

from entrostat.campaign.engine import Checkpoint
from entrostat.engine.checkpoint import CheckpointStore

RESUME = "resume"


class Keeper:
    """The kept checkpoints of one campaign, as tags of its store.

    A resume point remembers the peak and the ring of its moment under tags of their own, `resume-<tag>`, so that a
    campaign that goes on from there has again what it had then. ring: how many steps it holds.
    """

    def __init__(self, store: CheckpointStore, ring: int) -> None:
        self.store, self.size = store, ring
        tags = store.tags()
        self.resume = tags.get(RESUME)
        self._at_resume = {tag: kept for tag, kept in tags.items() if tag.startswith(RESUME)}
        held = {tag.removeprefix(f"{RESUME}-"): kept for tag, kept in self._at_resume.items()}
        self._start, self._peak, self.end = tags.get("start"), held.get("peak"), tags.get("end")
        self._ring = {kept.step: kept for tag, kept in held.items() if tag.startswith("ring-")}

    @property
    def start(self) -> Checkpoint:
        """The campaign's first weights."""
        assert self._start is not None
        return self._start

    @start.setter
    def start(self, checkpoint: Checkpoint) -> None:
        self._start = checkpoint

    @property
    def peak(self) -> Checkpoint:
        """The best weights so far."""
        assert self._peak is not None
        return self._peak

    @peak.setter
    def peak(self, checkpoint: Checkpoint) -> None:
        self._peak = checkpoint

    @property
    def steps(self) -> list[int]:
        """Steps whose weights are at hand."""
        return sorted({checkpoint.step for checkpoint in self._held().values()})

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a kept step. ValueError: it is kept no more."""
        for kept in self._held().values():
            if kept.step == step:
                return kept
        raise ValueError(f"step is {step}, but kept are {self.steps}; plan a longer ring")

    def put_in_ring(self, checkpoint: Checkpoint) -> None:
        """Keep a step's weights, in the place of the oldest in a full ring."""
        self._ring[checkpoint.step] = checkpoint
        for step in sorted(self._ring)[: -self.size]:
            del self._ring[step]
        self._retag()

    def keep_peak(self, checkpoint: Checkpoint) -> None:
        """Make this the peak."""
        self._peak = checkpoint
        self._retag()

    def save_resume_point(self, checkpoint: Checkpoint) -> None:
        """Make this the place from which a killed campaign goes on, with what is kept now."""
        now = {tag: kept for tag, kept in self._held().items() if tag not in ("start", "end")}
        self._at_resume = {RESUME: checkpoint, **{f"{RESUME}-{tag}": kept for tag, kept in now.items()}}
        self._retag()

    def _held(self) -> dict[str, Checkpoint]:
        named = {"start": self._start, "peak": self._peak, "end": self.end}
        held = {tag: kept for tag, kept in named.items() if kept is not None}
        return {**held, **{f"ring-{step}": kept for step, kept in self._ring.items()}}

    def _retag(self) -> None:
        self.store.retag({**self._held(), **self._at_resume})
