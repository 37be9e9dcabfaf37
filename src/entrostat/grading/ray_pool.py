"""RayGrader: a CodeGrader in each of several Ray actors, for clusters (the extra `ray`)."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterable
from typing import Any

from entrostat.grading.code import CodeGrader
from entrostat.grading.judging import AnyTask
from entrostat.grading.verdict import Outcome, Verdict

_ATTEMPTS = 2
_CHUNKS_PER_ACTOR = 4

Pair = tuple[AnyTask, str]


class RayGrader:
    """Spreads gradings over Ray actors, one CPU each; same verdicts as CodeGrader.

    actors: how many. settings: of each actor's CodeGrader, which has one worker. A chunk whose actor dies is graded
    once more by another, then its verdicts are infrastructure errors. Connects to the cluster of ray.init(), or
    starts one here.
    """

    def __init__(self, actors: int = 2, **settings: Any) -> None:
        if actors < 1:
            raise ValueError(f"actors is {actors}; allowed: at least 1")
        self._ray: Any = importlib.import_module("ray")
        if not self._ray.is_initialized():
            self._ray.init()
        self._actor = self._ray.remote(num_cpus=1)(CodeGrader)
        self._settings = {"workers": 1, **settings}
        self._actors = [self._actor.remote(**self._settings) for _ in range(actors)]
        self._death = ""  # why an actor died last

    def __enter__(self) -> RayGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors; the cluster stays."""
        while self._actors:
            self._ray.kill(self._actors.pop())

    def grade(self, pairs: Iterable[Pair], deadline: float | None = None) -> list[Verdict]:
        """The verdicts of (task, completion) pairs, in their order; deadline as in CodeGrader.grade."""
        if not self._actors:
            raise ValueError("this grader is closed; make a new RayGrader")
        pairs = list(pairs)
        until = None if deadline is None else time.monotonic() + deadline
        size = max(1, math.ceil(len(pairs) / (len(self._actors) * _CHUNKS_PER_ACTOR)))
        verdicts: dict[int, list[Verdict]] = {}
        waiting = {start: pairs[start : start + size] for start in range(0, len(pairs), size)}
        for _ in range(_ATTEMPTS):
            verdicts |= self._grade_chunks({s: chunk for s, chunk in waiting.items() if s not in verdicts}, until)
        lost = Verdict(Outcome.INFRASTRUCTURE_ERROR, f"the actor that graded this died: {self._death}")
        return [v for start, chunk in waiting.items() for v in verdicts.get(start, [lost] * len(chunk))]

    def _grade_chunks(self, chunks: dict[int, list[Pair]], until: float | None) -> dict[int, list[Verdict]]:
        """The verdicts of the chunks whose actors lived; dead actors are replaced."""
        verdicts: dict[int, list[Verdict]] = {}
        free = list(range(len(self._actors)))
        running: dict[Any, tuple[int, int]] = {}
        queue = list(chunks)[::-1]
        while queue or running:
            while queue and free:
                start, slot = queue.pop(), free.pop()
                seconds = None if until is None else max(0.0, until - time.monotonic())
                running[self._actors[slot].grade.remote(chunks[start], seconds)] = start, slot
            (done,), _ = self._ray.wait(list(running))
            start, slot = running.pop(done)
            free.append(slot)
            try:
                verdicts[start] = self._ray.get(done)
            except self._ray.exceptions.RayActorError as error:
                self._death = " ".join(str(error).split())
                self._actors[slot] = self._actor.remote(**self._settings)
        return verdicts
