"""The watchdog over a campaign: where a detector's finding ends it, and hands its peak over.

It is a campaign rule around another one: it gives every line to `entrostat.diagnosis.watchdog.Watchdog`, which only
reports, and orders what the recipe's section `watch` says. After a roll-back `campaign/single.py` trains on from the
peak, or restarts from the bank of `engine/traces.py`, as `again` of `open_campaign` in `engine/train.py` says. TRL and
verl have their own: `integrations/trl/watchdog.py` and `integrations/verl/watchdog.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from entrostat.campaign import CampaignTrace, Checkpoint, Controller
from entrostat.campaign.engine import Line, Order, Plan, Progress, Stop
from entrostat.diagnosis import Finding, recognise_row
from entrostat.diagnosis.notify import Webhook, sentence
from entrostat.diagnosis.reading.folder import eval_row, step_row
from entrostat.recipe import RecipeError
from entrostat.recipe.sections import WatchRecipe
from entrostat.runs import Run


def webhook_of(settings: WatchRecipe | None, run: str) -> Webhook | None:
    """The webhook for the findings of a run. RecipeError: the environment variable that it names holds no address."""
    if settings is None or settings.webhook is None:
        return None
    try:
        return Webhook.from_environment(settings.webhook, run)
    except ValueError as error:
        raise RecipeError(f"watch.{error}") from error


class Watched:
    """A campaign rule under a watchdog, which sees what the rule sees: step lines and the select split.

    Each finding is recorded with its cause; the first that triggers the action ends the campaign. After a resume the
    watchdog sees all earlier lines again, so a killed run makes the same findings and decisions.
    """

    def __init__(self, controller: Controller, settings: WatchRecipe, record: Run, end: int) -> None:
        self.controller, self.settings, self.record = controller, settings, record
        self._acting = settings.acting()
        self.watchdog = self._acting.watchdog(end)
        self.cause: Finding | None = None
        self._webhook = webhook_of(settings, record.path.name)
        self._seen = (0, 0)

    @property
    def steps(self) -> int:
        """The steps of the campaign rule."""
        return self.controller.steps

    def plan(self, history: Sequence[CampaignTrace]) -> Plan:
        """See the campaign rule."""
        return self.controller.plan(history)

    def decide(self, progress: Progress, history: Sequence[CampaignTrace]) -> Order:
        """Stop at a finding that triggers the action; else the order of the campaign rule."""
        self._look(progress.steps, progress.evals)
        return self.controller.decide(progress, history) if self.cause is None else Stop(cause=str(self))

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The checkpoint that the rule hands over, unless a finding triggered an action: the peak for `keep-peak` and
        `roll-back`, and for `restart-from-traces` the one that is to learn from the traces.
        """
        self._look(trace.steps, trace.evals)
        if self.cause is None or self.settings.action == "stop":
            return self.controller.hand_over(trace)
        restart = self.settings.restarting
        return trace.start if restart and restart.policy == "start" else trace.peak

    def lesson(self, trace: CampaignTrace, history: Sequence[CampaignTrace]) -> Mapping[str, Any] | None:
        """See the campaign rule."""
        return self.controller.lesson(trace, history)

    def __str__(self) -> str:
        return f"watchdog, {sentence(self.cause)}" if self.cause else str(self.controller)

    def _look(self, steps: Sequence[Line], evals: Sequence[Line]) -> None:
        """Give the watchdog the lines that it has not seen, until a finding ends the campaign."""
        new = [*steps[self._seen[0] :], *evals[self._seen[1] :]]
        self._seen = (len(steps), len(evals))
        for line in sorted(new, key=lambda line: int(line["step"])):
            row = eval_row(line) if "split" in line else step_row(line)
            if not row or self.cause is not None:
                continue
            for finding in self.watchdog.observe(row["step"], recognise_row(row).values):
                self._note(finding)

    def _note(self, finding: Finding) -> None:
        decision = {"step": finding.step, "kind": "finding", "cause": sentence(finding), "evidence": finding.evidence}
        known = decision in self.record.decisions()
        self.record.note_decision(decision)
        if self._webhook and not known and (failure := self._webhook.send(finding)):
            self.record.note_decision({"step": finding.step, "kind": "not sent", "cause": failure})
        if self._acting.on(finding):
            self.cause = self.cause or finding
