"""A campaign in two parts: after a roll-back the steps that are left are spent from the peak, as a second run.

    campaign-00/                   the first part
    campaign-00/after-roll-back/   the second, whose step 0 has the weights of the step that was handed over

As one campaign its steps count on: step s > 0 of the second part is step `at` + s, where `at` is the first part's last;
its step 0 is the step `start` that the weights come from.
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
    """What a campaign's run folder holds, of both parts where there are two; evals of all splits."""

    steps: Sequence[Line]
    evals: Sequence[Line]
    decisions: Sequence[Line] = ()

    @classmethod
    def of(cls, record: Run) -> Lines:
        """Those of one run folder."""
        return cls(record.steps(), record.evals(), record.decisions())


@dataclass(frozen=True, slots=True)
class Seam:
    """Where two parts meet: the second has the weights of step `start`, and goes on when step `at` is done."""

    start: int
    at: int

    def step(self, step: int) -> int:
        """The step of the whole campaign at which the weights of a step of the second part came about."""
        return self.at + step if step else self.start

    def lines(self, first: Lines, second: Lines) -> Lines:
        """The lines of both parts, in the order in which they were written.

        Where the second part measured whole splits of its start, the first has measured the same weights before.
        """
        evals = [line for line in second.evals if line["step"] or "at" in line or "tasks" in line]
        return Lines(
            [*first.steps, *({**line, "step": self.at + line["step"]} for line in second.steps)],
            [*first.evals, *(self._evaluation(line) for line in evals)],
            [*first.decisions, *(self._decision(line) for line in second.decisions)],
        )

    def trace(self, first: CampaignTrace, second: CampaignTrace) -> CampaignTrace:
        """Both parts as one campaign. Its peak is the better one on the select split, the first's where they are equal;
        `confirmed` where the second part's controller chose one."""
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
        found = dict(zip(first.steps, first.pass_at_1, strict=True))
        for step, value in zip(second.steps, second.pass_at_1, strict=True):
            if step:
                found[self.step(step)] = value
        return Trajectory(tuple(found), tuple(found.values()))

    def _evaluation(self, line: Line) -> dict[str, Any]:
        made = self.at + int(line.get("at", line["step"]))
        step = self.step(line["step"])
        return {**line, "step": step, **({"at": made} if made != step else {})}

    def _decision(self, line: Line) -> dict[str, Any]:
        back = {"to_step": self.step(line["to_step"])} if "to_step" in line else {}
        return {**line, "step": self.at + line["step"], **back}
