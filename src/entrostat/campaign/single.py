"""One campaign: an engine trains under a controller, and a checkpoint is handed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Engine, Order, Progress, Stop
from entrostat.campaign.stopping import Controller, standing
from entrostat.runs import Run


@dataclass(frozen=True, slots=True)
class CampaignOutcome:
    """A campaign's trace, the checkpoint that it hands over, and whether the controller ended it before its budget."""

    trace: CampaignTrace
    handed_over: Checkpoint
    stopped: bool


def run_campaign(
    engine: Engine, controller: Controller, start: Checkpoint, record: Run, history: Sequence[CampaignTrace] = ()
) -> CampaignOutcome:
    """Run one campaign from `start` and decide on its hand-over.

    A plan that differs from a whole campaign, every stop and roll-back, and what is remembered of the campaign are
    noted in `record` with their cause. The controller sees the select split only. history: the chain's earlier
    campaigns. A campaign that was killed goes on from `record` and decides the same.
    RunError: another process is writing `record`.
    """
    plan = controller.plan(history)

    def decide(progress: Progress) -> Order:
        order = controller.decide(progress, history)
        if isinstance(order, Stop) and progress.step < plan.budget:
            record.note_decision({"step": progress.step, "kind": "stop", "cause": order.cause or str(controller)})
        return order

    with record.sole_writer():
        trace = engine.run(start, plan, decide, record)
        handed_over = controller.hand_over(trace)
        end = trace.end.step
        if plan.cause:
            record.note_decision(
                {"step": 0, "kind": "plan", "cause": plan.cause, "budget": plan.budget, "rate": plan.rate}
            )
        if handed_over.step != end:
            cause = f"{controller}: {standing(trace.select)}"
            record.note_decision(
                {"step": end, "kind": "roll-back", "to_step": handed_over.step, "cause": cause},
            )
        if lesson := controller.lesson(trace, history):
            record.note_decision({"step": end, **lesson})
    return CampaignOutcome(trace, handed_over, stopped=end < plan.budget)
