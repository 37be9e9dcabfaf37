"""A campaign in two parts: after a roll-back, the remaining steps are a second run that starts from the peak.

    campaign-00/                   the first part
    campaign-00/after-roll-back/   the second, whose step 0 has the weights of the step that was handed over

The steps are counted as one campaign: step s > 0 of the second part is step `at` + s, where `at` is the first part's
last step; its step 0 is the step `start` from which the weights come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Line
from entrostat.runs import Run, Trajectory

AFTER_ROLL_BACK = "after-roll-back"


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a campaign's run folder, of both parts if there are two; evals of all splits."""

    steps: Sequence[Line]
    evals: Sequence[Line]
    decisions: Sequence[Line] = ()

    @classmethod
    def of(cls, record: Run) -> Lines:
        """The lines of one run folder."""
        return cls(record.steps(), record.evals(), record.decisions())


@dataclass(frozen=True, slots=True)
class Seam:
    """How two parts join: the second starts with the weights of step `start`, after step `at` of the first."""

    start: int
    at: int

    def step(self, step: int) -> int:
        """The step of the whole campaign that produced the weights of a step of the second part."""
        return self.at + step if step else self.start

    def lines(self, first: Lines, second: Lines) -> Lines:
        """The lines of both parts, in the order in which they were written.

        Whole-split evaluations of the second part's start are dropped: the first part measured the same weights.
        """
        evals = [line for line in second.evals if line["step"] or "at" in line or "tasks" in line]
        return Lines(
            [*first.steps, *({**line, "step": self.at + line["step"]} for line in second.steps)],
            [*first.evals, *(self._evaluation(line) for line in evals)],
            [*first.decisions, *(self._decision(line) for line in second.decisions)],
        )

    def trace(self, first: CampaignTrace, second: CampaignTrace) -> CampaignTrace:
        """Both parts as one campaign. Its peak is the better one on the select split, the first's if they are equal;
        `confirmed` is set if the second part's controller chose one."""
        select, report = (self._curve(a, b) for a, b in ((first.select, second.select), (first.report, second.report)))
        lines = self.lines(Lines(first.steps, first.evals), Lines(second.steps, second.evals))
        moved = Checkpoint(second.peak.path, self.step(second.peak.step))
        chosen = second.confirmed is not None
        peak = moved if chosen or select.peak_step > self.at else first.peak
        return CampaignTrace(
            select,
            report,
            first.start,
            first.peak if peak.step == first.peak.step else peak,
            Checkpoint(second.end.path, self.step(second.end.step)),
            confirmed=peak.step if chosen or peak.step != select.peak_step else None,
            steps=lines.steps,
            evals=lines.evals,
        )

    def _curve(self, first: Trajectory, second: Trajectory) -> Trajectory:
        curve = dict(zip(first.steps, first.pass_at_1, strict=True))
        for step, value in zip(second.steps, second.pass_at_1, strict=True):
            if step:
                curve[self.step(step)] = value
        return Trajectory(tuple(curve), tuple(curve.values()))

    def _evaluation(self, line: Line) -> dict[str, Any]:
        made = self.at + int(line.get("at", line["step"]))
        step = self.step(line["step"])
        return {**line, "step": step, **({"at": made} if made != step else {})}

    def _decision(self, line: Line) -> dict[str, Any]:
        back = {"to_step": self.step(line["to_step"])} if "to_step" in line else {}
        return {**line, "step": self.at + line["step"], **back}
