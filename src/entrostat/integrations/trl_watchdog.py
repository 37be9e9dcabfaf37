"""The watchdog in TRL, and in any trainer of Transformers: a callback.

    callback = WatchdogCallback(action="keep-peak")
    callback.attach(trainer)
    trainer.train()

It reads the metrics that the trainer logs. Each finding and each action is written to `watchdog.jsonl` in the output
folder, with its cause, and to the log. All processes see the same metrics and decide the same; only the
first writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from entrostat.diagnosis import Acting, Action, Finding, Severity, Watchdog, recognise_row
from entrostat.diagnosis.notify import Webhook, sentence
from entrostat.integrations.peak import keep, refuse_foreign

logger = logging.getLogger(__name__)

KEEPING = ("keep-peak", "roll-back")
Switch = Callable[[Any, Finding], None]


class WatchdogCallback(TrainerCallback):  # type: ignore[misc]
    """Reads the trainer's log, and acts on the findings of the detectors.

    action: `note` records findings; `stop` also ends training; `keep-peak` keeps the checkpoint of the highest
    score in `OUTPUT/peak` and ends training; `roll-back` loads that checkpoint once, resets the optimizer's moments,
    calls `switch(trainer, finding)` and continues; the second time it acts as `keep-peak`. severity, kinds: as in
    `entrostat.diagnosis.Acting`. The score is the held-out one (`eval_reward`) if the trainer evaluates, else the
    mean reward of the last `smooth` logs, checked every `every` steps; each new peak makes the trainer save a
    checkpoint. webhook: the environment variable that holds the address to which findings are sent.
    Raises ValueError for an unknown action, severity or kind, for a variable that holds no address, and when training
    begins for roll-back without `attach`, and FileExistsError for an `OUTPUT/peak` that no watchdog made.
    """

    def __init__(
        self,
        action: Action = "note",
        *,
        severity: Severity = "critical",
        kinds: Sequence[str] | None = None,
        switch: Switch | None = None,
        webhook: str | None = None,
        every: int = 10,
        smooth: int = 8,
    ) -> None:
        self.acting = Acting(action, severity, kinds)
        self.switch, self.every, self.smooth = switch, every, smooth
        self.webhook = Webhook.from_environment(webhook) if webhook else None
        self.watchdog = Watchdog()
        self.rolled_back = False
        self.peak: tuple[int, float] | None = None
        self._trainer: Any = None
        self._asked: int | None = None

    def attach(self, trainer: Any) -> WatchdogCallback:
        """Attach to a trainer; roll-back needs this, because it loads weights."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Log that the watchdog is active; read what a resumed run has logged before."""
        if self.acting.action == "roll-back" and self._trainer is None:
            raise ValueError("roll-back loads weights: use WatchdogCallback(...).attach(trainer)")
        if self.acting.action in KEEPING:
            refuse_foreign(Path(args.output_dir) / "peak")
        self.watchdog = Watchdog(state.max_steps)
        for row in state.log_history:
            self.watchdog.observe(row["step"], recognise_row(row).values)
        logger.warning("entrostat watchdog is active: action %s from %s on", self.acting.action, self.acting.severity)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Record a row, check for a peak, act on findings."""
        found = self.watchdog.observe(state.global_step, recognise_row(logs or {}).values)
        if self.acting.action in KEEPING and not found:  # a step that failed is no peak
            self._look_for_peak(state, control)
        for finding in found:
            self._note(
                args, state, {"kind": "finding", "step": finding.step, "finding": finding.as_dict()}, sentence(finding)
            )
            if self.webhook and state.is_world_process_zero and (failure := self.webhook.send(finding)):
                logger.warning("%s", failure)
            if self.acting.on(finding) and not control.should_training_stop:
                self._act(args, state, control, finding)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Keep the checkpoint of a peak by links, not copies, so that the trainer's rotation does not delete it."""
        if self._asked != state.global_step or not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        try:
            keep(folder, Path(args.output_dir) / "peak")
        except OSError as error:
            logger.warning("entrostat watchdog: the peak of step %s is not kept: %s", state.global_step, error)

    def _look_for_peak(self, state: Any, control: Any) -> None:
        step, history = state.global_step, self.watchdog.history
        heldout, reward = history.series("heldout"), history.series("reward")
        if len(heldout):
            score = float(heldout.values[-1]) if heldout.steps[-1] == step else None
        else:
            due = step % self.every == 0 and len(reward) >= self.smooth
            score = float(reward.values[-self.smooth :].mean()) if due else None
        if score is not None and (self.peak is None or score > self.peak[1]):
            self.peak, self._asked = (step, score), step
            control.should_save = True

    def _act(self, args: Any, state: Any, control: Any, finding: Finding) -> None:
        action, cause = self.acting.action, sentence(finding)
        peak = Path(args.output_dir) / "peak"
        if action == "roll-back" and not self.rolled_back and peak.exists() and self.peak:
            self._roll_back(peak, finding)
            self._note(args, state, {"kind": "roll-back", "step": state.global_step, "to_step": self.peak[0]}, cause)
            return
        control.should_training_stop = True
        kept = {"peak": str(peak), "peak_step": self.peak[0]} if action != "stop" and self.peak else {}
        self._note(args, state, {"kind": "stop", "step": state.global_step, **kept}, cause)

    def _roll_back(self, peak: Path, finding: Finding) -> None:
        trainer = self._trainer
        trainer._load_from_checkpoint(str(peak))  # the one loader that knows sharded, PEFT and FSDP checkpoints
        trainer.optimizer.state.clear()
        trainer._buffered_inputs = None  # completions of the policy that was given up
        self.rolled_back = True
        self.watchdog = Watchdog(self.watchdog.end)
        if self.switch:
            self.switch(trainer, finding)

    def _note(self, args: Any, state: Any, line: Mapping[str, Any], cause: str) -> None:
        if not state.is_world_process_zero:
            return
        logger.warning("entrostat watchdog: %s: %s", line["kind"], cause)
        with (Path(args.output_dir) / "watchdog.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "cause": cause}) + "\n")
