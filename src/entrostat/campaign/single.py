"""One campaign: an engine trains under a stop rule, and a checkpoint is handed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Engine
from entrostat.campaign.stopping import StopRule
from entrostat.runs import Run, Trajectory


@dataclass(frozen=True, slots=True)
class CampaignOutcome:
    """A campaign's trace, the checkpoint that it hands over, and whether the rule ended it before its budget."""

    trace: CampaignTrace
    handed_over: Checkpoint
    stopped: bool


def run_campaign(
    engine: Engine, rule: StopRule, start: Checkpoint, record: Run, history: Sequence[CampaignTrace] = ()
) -> CampaignOutcome:
    """Run one campaign from `start` and decide on its hand-over.

    Every stop and roll-back is noted in `record` with its cause. The rule sees the select split only. history: the
    chain's earlier campaigns. A campaign that was killed goes on from `record` and decides the same.
    RunError: another process is writing `record`.
    """
    budget = rule.budget(history)

    def should_stop(select: Trajectory) -> bool:
        if not rule.should_stop(select):
            return False
        cause = f"{rule}: {_standing(select)}"
        record.note_decision({"step": select.steps[-1], "kind": "stop", "cause": cause})
        return True

    with record.sole_writer():
        trace = engine.run(start, budget, should_stop, record)
        handed_over = rule.hand_over(trace)
        if handed_over.step != trace.end.step:
            record.note_decision(
                {
                    "step": trace.end.step,
                    "kind": "roll-back",
                    "to_step": handed_over.step,
                    "cause": f"{rule}: {_standing(trace.select)}",
                }
            )
    return CampaignOutcome(trace, handed_over, stopped=trace.steps_used < budget)


def _standing(select: Trajectory) -> str:
    return (
        f"pass@1 on select is {select.end:.3f} at step {select.steps[-1]}, "
        f"its highest was {select.peak:.3f} at step {select.peak_step}"
    )
