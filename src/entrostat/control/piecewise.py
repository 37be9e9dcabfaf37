"""Any sequence of phases: clip rules at points of the run, with linear interpolation between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from entrostat.control.part import Phase, strategy
from entrostat.control.strategies import STANDARD, Schedule
from entrostat.objective import ClipRule


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the run: until the share `until` of the steps the rule moves from `start` to `end`, linearly in both
    thresholds; `end` None keeps `start`. phase: its name in reports.
    """

    until: float
    start: ClipRule = STANDARD
    end: ClipRule | None = None
    phase: Phase = "hold"


@strategy("piecewise")
@dataclass
class Piecewise(Schedule):
    """Stages in sequence; each includes its last step, like the first phase of ID.

    Raises ValueError if `until` does not increase within (0, 1] or the last stage does not end at 1.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(set(ends)) or not ends[0] > 0 or ends[-1] != 1:
            raise ValueError(f"Piecewise.stages: until is {ends}; it must increase from above 0 to 1 at the last stage")

    @override
    def at(self, done: float) -> ClipRule:
        index = self._index(done)
        stage, begin = self.stages[index], self.stages[index - 1].until if index else 0.0
        end = stage.start if stage.end is None else stage.end
        weight = 1 - (done - begin) / (stage.until - begin)
        return stage.start.mix(end, weight)

    @override
    def bands(self) -> Sequence[ClipRule]:
        return [rule for stage in self.stages for rule in (stage.start, stage.end) if rule is not None]

    @override
    def phase_at(self, done: float) -> Phase:
        return self.stages[self._index(done)].phase

    def _index(self, done: float) -> int:
        return next(index for index, stage in enumerate(self.stages) if done <= stage.until)
