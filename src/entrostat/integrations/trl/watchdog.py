"""The watchdog in TRL, and in any trainer of Transformers: a callback.

    callback = WatchdogCallback(action="keep-peak")
    callback.attach(trainer)
    trainer.train()

It reads the metrics that the trainer logs. Each finding and each action is written to `watchdog.jsonl` in the output
folder, with its cause, and to the log. All processes see the same metrics and decide the same; only the
first writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from entrostat.diagnosis import Acting, Action
from entrostat.diagnosis.notify import sentence
from entrostat.integrations.peak import SMOOTH, PeakWatchdog, append, keep, refuse_foreign
from entrostat.runs.finding import Finding, Severity

logger = logging.getLogger(__name__)

Switch = Callable[[Any, Finding], None]


class WatchdogCallback(TrainerCallback):  # type: ignore[misc]
    """Reads the trainer's log, and acts on the findings of the detectors.

    action: `note` records findings; `stop` also ends training; `keep-peak` keeps the checkpoint of the highest
    score in `OUTPUT/peak` and ends training; `roll-back` loads that checkpoint once, resets the optimizer's moments,
    calls `switch(trainer, finding)` and continues; the second time it acts as `keep-peak`. severity, kinds, detectors:
    as in `entrostat.diagnosis.Acting`. The score is the held-out one (`eval_reward`) if the trainer evaluates, else the
    mean reward of the last `smooth` logs, checked every `every` steps; each new peak makes the trainer save a
    checkpoint. webhook: the environment variable that holds the address to which findings are sent.
    Raises ValueError for an unknown action, severity, kind or detector, for a variable that holds no address, and when
    training begins for roll-back without `attach`, and FileExistsError for an `OUTPUT/peak` that no watchdog made.
    """

    def __init__(
        self,
        action: Action = "note",
        *,
        severity: Severity = "critical",
        kinds: Sequence[str] | None = None,
        detectors: Sequence[str] = (),
        switch: Switch | None = None,
        webhook: str | None = None,
        every: int = 10,
        smooth: int = SMOOTH,
    ) -> None:
        self.watch = PeakWatchdog(Acting(action, severity, kinds, detectors), webhook, smooth)
        self.switch, self.every = switch, every
        self._trainer: Any = None
        self._asked: int | None = None

    def attach(self, trainer: Any) -> WatchdogCallback:
        """Attach to a trainer; roll-back needs this, because it loads weights."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Log that the watchdog is active; read what a resumed run has logged before."""
        acting = self.watch.acting
        if acting.action == "roll-back" and self._trainer is None:
            raise ValueError("roll-back loads weights: use WatchdogCallback(...).attach(trainer)")
        if self.watch.keeping:
            refuse_foreign(Path(args.output_dir) / "peak")
        self.watch.watchdog = self.watch.acting.watchdog(state.max_steps)
        for row in state.log_history:
            self.watch.observe(row["step"], row)
        logger.warning("entrostat watchdog is active: action %s from %s on", acting.action, acting.severity)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Record a row, check for a peak, act on findings."""
        findings = self.watch.observe(state.global_step, logs or {})
        if self.watch.keeping and not findings:  # a step that failed is no peak
            due = state.global_step % self.every == 0
            if self.watch.is_new_peak(state.global_step, due=due):
                self._asked, control.should_save = state.global_step, True
        for finding in findings:
            self._note(
                args, state, {"kind": "finding", "step": finding.step, "finding": finding.as_dict()}, sentence(finding)
            )
            if state.is_world_process_zero:
                self.watch.send(finding)
            if self.watch.acting.on(finding) and not control.should_training_stop:
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

    def _act(self, args: Any, state: Any, control: Any, finding: Finding) -> None:
        action, peak, cause = self.watch.acting.action, self.watch.peak, sentence(finding)
        folder = Path(args.output_dir) / "peak"
        if self.watch.may_roll_back and folder.exists() and peak:
            self._roll_back(folder, finding)
            self._note(args, state, {"kind": "roll-back", "step": state.global_step, "to_step": peak[0]}, cause)
            return
        control.should_training_stop = True
        kept = {"peak": str(folder), "peak_step": peak[0]} if action != "stop" and peak else {}
        self._note(args, state, {"kind": "stop", "step": state.global_step, **kept}, cause)

    def _roll_back(self, peak: Path, finding: Finding) -> None:
        trainer = self._trainer
        trainer._load_from_checkpoint(str(peak))  # the one loader that knows sharded, PEFT and FSDP checkpoints
        trainer.optimizer.state.clear()
        trainer._buffered_inputs = None  # completions of the policy that was given up
        self.watch.begin_again()
        if self.switch:
            self.switch(trainer, finding)

    def _note(self, args: Any, state: Any, line: Mapping[str, Any], cause: str) -> None:
        if not state.is_world_process_zero:
            return
        logger.warning("entrostat watchdog: %s: %s", line["kind"], cause)
        append(Path(args.output_dir) / "watchdog.jsonl", {**line, "cause": cause})
