"""The watchdog in verl: one more logger of its `Tracking`, which every trainer of verl calls once per step.

    VERL_USE_EXTERNAL_MODULES=entrostat.integrations.verl.watchdog python -m verl.trainer.main_ppo ... \\
        +trainer.entrostat_watch.action=keep-peak trainer.save_freq=20 trainer.test_freq=20 \\
        trainer.checkpoint_callback_class=entrostat.integrations.verl.watchdog.PeakKeeper

With Ray on several machines the variable must reach the task runner's process:
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES=entrostat.integrations.verl.watchdog

Keys of `trainer.entrostat_watch`, all optional: action, severity, kinds, webhook (the environment variable that holds
the address). Actions:

note        record findings.
stop        also end training. verl's loop has no way to end early: `WatchdogStopError` ends it, after the step has been
            logged and a checkpoint that was due has been saved.
keep-peak   of the checkpoints that verl saves, keep the one with the highest score in `peak`, next to them, where
            rotation does not delete it; a finding ends training. `trainer.resume_mode=resume_path` resumes from it.
roll-back   the first finding loads it into the actor, the critic and the rollout, and training continues with the
            remaining steps; the second one ends training. Only for the synchronous trainers.

The last two need verl's v1 trainers and `PeakKeeper`. The score is the held-out one where verl validates (then
`save_freq` is a multiple of `test_freq`), else the mean reward of the last 8 steps.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrostat._renamed import current_name
from entrostat.diagnosis import Acting
from entrostat.diagnosis.notify import sentence
from entrostat.errors import EntrostatError
from entrostat.integrations.peak import KEEPING, PeakWatchdog, append, keep
from entrostat.runs.finding import Finding
from entrostat.runs.ownership import remove

NAME = "entrostat"
KEYS = ("action", "severity", "kinds", "webhook")
ACTIONS = ("note", "stop", "keep-peak", "roll-back")
KEEPER = f"{__name__}.PeakKeeper"
SYNCHRONOUS = ("sync", "entrostat")
NO_KEEPING = {True: "it is saved asynchronously", False: "this module is not in VERL_USE_EXTERNAL_MODULES"}

logger = logging.getLogger(__name__)


class WatchdogStopError(EntrostatError, RuntimeError):
    """Training was ended by the watchdog; the message is the finding."""


class WatchdogLogger:
    """Receives what verl logs; `trainer` is that section of its configuration, as plain data.

    Findings and actions go to `default_local_dir`/watchdog.jsonl, one per line, and to the log. ValueError: an unknown
    key or value, or an action that the rest of the section does not allow, with what to change.
    """

    def __init__(self, trainer: Mapping[str, Any]) -> None:
        settings = trainer.get("entrostat_watch") or {}
        refuse_impossible(settings, trainer)
        action, severity = settings.get("action", "note"), settings.get("severity", "critical")
        self.watch = PeakWatchdog(
            Acting(action, severity, settings.get("kinds"), settings.get("detectors") or ()), settings.get("webhook")
        )
        self.watch.watchdog = self.watch.acting.watchdog(trainer.get("total_training_steps"))
        self.folder = Path(trainer.get("default_local_dir") or ".")
        self._saved: tuple[Any, int, Path] | None = None
        logger.warning("entrostat watchdog is active: action %s, findings in %s", action, self._file)

    def log(self, data: Mapping[str, Any], step: int, **_: Any) -> None:
        """Record a step. Raises WatchdogStopError for a finding that ends training."""
        findings = self.watch.observe(step, data)
        if (
            self.watch.keeping and self._saved and self._saved[1] == step and not findings
        ):  # a step that failed is not a peak
            self._keep_if_peak(step, self._saved[2])
        for finding in findings:
            acted = self.watch.acting.on(finding)
            append(self._file, {**finding.as_dict(), "action": self.watch.acting.action if acted else "note"})
            logger.warning("entrostat watchdog: %s", sentence(finding))
            self.watch.send(finding)
            if acted:
                self._act(finding, step)
                return

    def saved(self, trainer: Any, step: int, checkpoint: Path) -> None:
        """Record a checkpoint of verl's, before its step is logged."""
        self._saved = trainer, step, checkpoint
        self.watch.watchdog.end = self.watch.watchdog.end or trainer.total_training_steps

    @property
    def _file(self) -> Path:
        return self.folder / "watchdog.jsonl"

    @property
    def _kept(self) -> Path | None:
        peak = self.watch.peak
        return self.folder / "peak" / f"global_step_{peak[0]}" if peak else None

    def _keep_if_peak(self, step: int, checkpoint: Path) -> None:
        before, folder = self.watch.peak, self._kept
        if not self.watch.is_new_peak(step):
            return
        try:
            keep(checkpoint, self.folder / "peak" / checkpoint.name)
        except OSError as error:
            logger.warning("entrostat watchdog: the peak of step %s is not kept: %s", step, error)
            self.watch.peak = before
            return
        if folder and folder != self._kept:
            remove(folder)

    def _act(self, finding: Finding, step: int) -> None:
        cause, peak = sentence(finding), self.watch.peak
        if self.watch.may_roll_back and peak:
            self._roll_back(step)
            append(self._file, {"kind": "roll-back", "step": step, "to_step": peak[0], "cause": cause})
            return
        kept = {"peak": str(self._kept), "peak_step": peak[0]} if peak else {}
        append(self._file, {"kind": "stop", "step": step, **kept, "cause": cause})
        raise WatchdogStopError(cause + (f"; the peak is kept in {self._kept}" if peak else ""))

    def _roll_back(self, step: int) -> None:
        """Like verl's own `_load_checkpoint`, except for step count and position in the data: the budget does not
        change, and no prompt is repeated."""
        from verl.trainer.ppo.utils import Role

        trainer = self._saved[0] if self._saved else None
        if trainer is None or self._kept is None:
            raise RuntimeError("roll-back without a checkpoint")
        trainer.checkpoint_manager.sleep_replicas()
        trainer.actor_rollout_wg.load_checkpoint(local_path=str(self._kept / "actor"), del_local_after_load=False)
        if trainer.use_critic:
            critic = str(self._kept / str(Role.Critic))
            trainer.critic_wg.load_checkpoint(local_path=critic, del_local_after_load=False)
        trainer.checkpoint_manager.update_weights(step)
        self.watch.begin_again()


def refuse_impossible(settings: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """ValueError, naming the key and the remedy, for settings that are unknown or that `trainer` does not allow."""
    unknown = sorted(set(settings) - set(KEYS))
    action = settings.get("action", "note")
    if unknown or action not in ACTIONS:
        what = unknown[0] if unknown else f"action={action}"
        raise ValueError(
            f"trainer.entrostat_watch: got {what}; keys are {', '.join(KEYS)}, actions {', '.join(ACTIONS)}"
        )
    if action not in KEEPING:
        return
    save, test = trainer.get("save_freq") or -1, trainer.get("test_freq") or -1
    callback, mode = trainer.get("checkpoint_callback_class"), (trainer.get("v1") or {}).get("trainer_mode")
    if current_name(str(callback)) != KEEPER:
        raise ValueError(f"trainer.checkpoint_callback_class is {callback!r}; {action} needs {KEEPER}")
    if save < 1:
        raise ValueError(f"trainer.save_freq is {save}; {action} needs verl's checkpoints: set it above 0")
    if test >= 1 and save % test:
        raise ValueError(f"trainer.save_freq is {save}; make it a multiple of test_freq, {test}: a peak needs a score")
    if action == "roll-back" and mode not in SYNCHRONOUS:
        raise ValueError(f"trainer.v1.trainer_mode is {mode!r}; roll-back needs one of {', '.join(SYNCHRONOUS)}")


class PeakKeeper:
    """verl's checkpoint callback (`trainer.checkpoint_callback_class`): reports saved checkpoints to the watchdog."""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any) -> None:
        """Pass on a checkpoint, unless it is still being written."""
        watchdog = getattr(trainer, "logger", None) and trainer.logger.logger.get(NAME)
        if watchdog is None or async_save:
            logger.warning("entrostat watchdog: step %s is not kept: %s", global_step, NO_KEEPING[async_save])
            return
        watchdog.saved(trainer, global_step, Path(checkpoint_dir))


def install() -> None:
    """Give every `Tracking` that verl makes from now on a watchdog, whatever other loggers it has. Done once."""
    from verl.utils.tracking import Tracking

    if NAME in Tracking.supported_backend:
        return
    plain = Tracking.__init__

    def with_watchdog(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        config = kwargs.get("config") or (args[3] if len(args) > 3 else None) or {}
        self.logger[NAME] = WatchdogLogger(config.get("trainer", {}))

    Tracking.__init__ = with_watchdog
    Tracking.supported_backend = [*Tracking.supported_backend, NAME]
    logger.warning("entrostat watchdog is installed in verl's Tracking")


if __name__ in map(current_name, os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")):
    install()
