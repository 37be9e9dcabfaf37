"""The watchdog over a campaign of the embedded engine: a stop rule that also acts on what the detectors find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entrostat.campaign import CampaignTrace, Checkpoint, StopRule, Trajectory
from entrostat.diagnose import Finding, Watchdog, recognise_row
from entrostat.diagnose.notify import Webhook, sentence
from entrostat.diagnose.reading.folder import eval_row, step_row
from entrostat.recipe.sections import WatchRecipe
from entrostat.runs import Run


class Watched:
    """A stop rule under a watchdog, which is also the engine's listener.

    It hears each line as it is written. What came before a resume it reads from the record, so a run that was killed
    finds and decides the same. Each finding is noted in the record with its cause; the first that the settings act on
    ends the campaign at that evaluation.
    """

    def __init__(self, rule: StopRule, settings: WatchRecipe, record: Run, end: int) -> None:
        self.rule, self.settings, self.record = rule, settings, record
        self.watchdog = Watchdog(end)
        self._acting = settings.acting()
        self.cause: Finding | None = None
        self._webhook = Webhook(settings.webhook, record.path.name) if settings.webhook else None
        self._heard: list[dict[str, Any]] | None = None

    def hear(self, line: dict[str, Any]) -> None:
        """Take a step line or an evaluation line as the engine writes it."""
        if self._heard is not None:
            self._heard.append(line)

    def budget(self, history: Sequence[CampaignTrace]) -> int:
        """That of the rule."""
        return self.rule.budget(history)

    def should_stop(self, trajectory: Trajectory) -> bool:
        """Whether a finding or the rule ends the campaign now."""
        self._catch_up()
        return self.cause is not None or self.rule.should_stop(trajectory)

    def hand_over(self, trace: CampaignTrace) -> Checkpoint:
        """The peak, where the settings say so and a finding was acted on; else what the rule hands over."""
        self._catch_up()
        return trace.peak if self.keeps_peak else self.rule.hand_over(trace)

    @property
    def keeps_peak(self) -> bool:
        """Whether a finding has ended the campaign and the peak is to be handed over."""
        return self.cause is not None and self.settings.action in ("keep-peak", "roll-back")

    def __str__(self) -> str:
        return f"watchdog, {sentence(self.cause)}" if self.cause else str(self.rule)

    def _catch_up(self) -> None:
        for line in self._new_lines():
            row = eval_row(line) if "split" in line else step_row(line)
            if not row or self.cause is not None:
                continue
            for finding in self.watchdog.observe(row["step"], recognise_row(row).values):
                self._note(finding)

    def _new_lines(self) -> list[dict[str, Any]]:
        """All lines of the record the first time, by step; then what was heard since."""
        if self._heard is None:
            lines = sorted([*self.record.steps(), *self.record.evals()], key=lambda line: int(line["step"]))
        else:
            lines = self._heard
        self._heard = []
        return lines

    def _note(self, finding: Finding) -> None:
        decision = {"step": finding.step, "kind": "finding", "cause": sentence(finding), "evidence": finding.evidence}
        known = decision in self.record.decisions()
        self.record.note_decision(decision)
        if self._webhook and not known and (failure := self._webhook.send(finding)):
            self.record.note_decision({"step": finding.step, "kind": "not sent", "cause": failure})
        if self._acting.on(finding):
            self.cause = self.cause or finding
