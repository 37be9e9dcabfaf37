"""One campaign: an engine trains under a campaign rule, and a checkpoint is handed over.

After a roll-back the campaign may continue: the remaining steps are a second run that starts from the peak.

    campaign-00/                   the first part
    campaign-00/after-roll-back/   the second, whose step 0 has the weights of the step that was handed over

The steps are counted as one campaign: step s > 0 of the second part is step `at` + s, where `at` is the first part's
last step; its step 0 is the step `start` from which the weights come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Engine, Line, Order, Plan, Progress, Stop
from entrostat.campaign.stopping import Controller, standing
from entrostat.runs import Run, Trajectory


@dataclass(frozen=True, slots=True)
class CampaignOutcome:
    """A campaign's trace, the checkpoint that it hands over, and whether the controller ended it before its budget.

    parts: the outcomes of its two parts, if it continued after a roll-back.
    """

    trace: CampaignTrace
    handed_over: Checkpoint
    stopped: bool
    parts: tuple[CampaignOutcome, ...] = ()

    @classmethod
    def of_parts(cls, first: CampaignOutcome, second: CampaignOutcome) -> CampaignOutcome:
        """The outcome of a campaign that continued after a roll-back."""
        between = seam(first)
        handed_over = Checkpoint(second.handed_over.path, between.step(second.handed_over.step))
        return cls(between.trace(first.trace, second.trace), handed_over, second.stopped, (first, second))


@dataclass(frozen=True, slots=True)
class Campaign:
    """An open campaign: its trainer, its campaign rule, and its run folder.

    again: called with the outcome and the number of remaining steps; opens a campaign that uses them from the
    handed-over checkpoint, or returns None if the campaign is over.
    """

    engine: Engine
    controller: Controller
    record: Run
    again: Callable[[CampaignOutcome, int], Campaign | None] = lambda *_: None


def run_campaign(
    engine: Engine, controller: Controller, start: Checkpoint, record: Run, history: Sequence[CampaignTrace] = ()
) -> CampaignOutcome:
    """Run one campaign from `start` and decide on its hand-over; see `run_open_campaign`."""
    return run_open_campaign(Campaign(engine, controller, record), start, history)


def run_open_campaign(campaign: Campaign, start: Checkpoint, history: Sequence[CampaignTrace] = ()) -> CampaignOutcome:
    """Run a campaign from `start`, including its part after a roll-back, and decide on its hand-over.

    Its record gets a decision line, with the cause, for a plan that differs from a full campaign, for every stop and
    roll-back, and for the lesson of the campaign. The controller sees only the select split. history: the chain's
    earlier campaigns. A killed campaign resumes from its record and decides the same.
    Raises RunError if another process is writing the record.
    """
    record = campaign.record
    plan = campaign.controller.plan(history)
    with record.sole_writer():
        outcome = _run_part(campaign, start, plan, history)
        end = outcome.trace.end.step
        if outcome.stopped and (again := campaign.again(outcome, plan.budget - end)):
            cause = f"{plan.budget - end} steps are left; they continue from step {outcome.handed_over.step} in "
            record.note_decision({"step": end, "kind": "switch", "cause": cause + AFTER_ROLL_BACK})
            rest = Plan(plan.budget - end, plan.rate)
            with again.record.sole_writer():
                second = _run_part(again, Checkpoint(outcome.handed_over.path, 0), rest, [*history, outcome.trace])
            outcome = CampaignOutcome.of_parts(outcome, second)
        if lesson := campaign.controller.lesson(outcome.trace, history):
            record.note_decision({"step": end, **lesson})
    return outcome


def seam(first: CampaignOutcome) -> Seam:
    """How the first part of a campaign and the part after its roll-back join."""
    return Seam(first.handed_over.step, first.trace.end.step)


def _run_part(campaign: Campaign, start: Checkpoint, plan: Plan, history: Sequence[CampaignTrace]) -> CampaignOutcome:
    """Train as planned; record the plan, the cause of an early end, and a hand-over that is not the end."""
    controller, record = campaign.controller, campaign.record

    def decide(progress: Progress) -> Order:
        order = controller.decide(progress, history)
        if isinstance(order, Stop) and progress.step < plan.budget:
            record.note_decision({"step": progress.step, "kind": "stop", "cause": order.cause or str(controller)})
        return order

    trace = campaign.engine.run(start, plan, decide, record)
    handed_over = controller.hand_over(trace)
    end = trace.end.step
    if plan.cause:
        record.note_decision({"step": 0, "kind": "plan", "cause": plan.cause, "budget": plan.budget, "rate": plan.rate})
    if handed_over.step != end:
        cause = f"{controller}: {standing(trace.select)}"
        record.note_decision({"step": end, "kind": "roll-back", "to_step": handed_over.step, "cause": cause})
    return CampaignOutcome(trace, handed_over, stopped=end < plan.budget)


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
