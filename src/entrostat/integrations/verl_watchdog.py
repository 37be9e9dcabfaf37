"""The watchdog in verl: one more logger of its `Tracking`, which every trainer of verl calls once a step.

    VERL_USE_EXTERNAL_MODULES=entrostat.integrations.verl_watchdog python -m verl.trainer.main_ppo ... \\
        +trainer.entrostat_watch.action=stop

With Ray on several machines the variable must reach the task runner's process:
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES=entrostat.integrations.verl_watchdog

Keys of `trainer.entrostat_watch`, all optional: action (`note` or `stop`), severity, kinds, webhook. verl's loop cannot
be asked to end: `stop` ends it by `WatchdogStopError`, after the step has been logged and a checkpoint that was due has
been saved. Keeping the peak and going back to it need the trainer itself and are not done here.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrostat.diagnose import Acting, Watchdog, recognise_row
from entrostat.diagnose.notify import Webhook, sentence

NAME = "entrostat"
KEYS = ("action", "severity", "kinds", "webhook")

logger = logging.getLogger(__name__)


class WatchdogStopError(RuntimeError):
    """Training was ended by the watchdog; the message is the finding."""


class WatchdogLogger:
    """Hears what verl logs; `settings` are those of `trainer.entrostat_watch`, `end` the last step or None.

    Findings go to `folder`/watchdog.jsonl, a line each, and to the log. ValueError: an unknown key or value.
    """

    def __init__(self, settings: Mapping[str, Any], end: int | None, folder: Path) -> None:
        unknown = sorted(set(settings) - set(KEYS))
        action = settings.get("action", "note")
        if unknown or action not in ("note", "stop"):
            what = unknown[0] if unknown else f"action={action}"
            raise ValueError(f"trainer.entrostat_watch: got {what}; keys are {', '.join(KEYS)}, actions note and stop")
        self.acting = Acting(action, settings.get("severity", "critical"), settings.get("kinds"))
        self.webhook = Webhook(settings["webhook"]) if settings.get("webhook") else None
        self.watchdog = Watchdog(end)
        self.file = folder / "watchdog.jsonl"
        logger.warning("entrostat watchdog is active: action %s, findings in %s", action, self.file)

    def log(self, data: Mapping[str, Any], step: int, **_: Any) -> None:
        """Hear a step. Raises WatchdogStopError for a finding that the settings act on."""
        for finding in self.watchdog.observe(step, recognise_row(data).values):
            acted = self.acting.on(finding)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**finding.as_dict(), "action": self.acting.action if acted else "note"}) + "\n")
            logger.warning("entrostat watchdog: %s", sentence(finding))
            if self.webhook and (failure := self.webhook.send(finding)):
                logger.warning("%s", failure)
            if acted:
                raise WatchdogStopError(sentence(finding))


def install() -> None:
    """Give every `Tracking` that verl makes from now on a watchdog, whatever other loggers it has. Done once."""
    from verl.utils.tracking import Tracking

    if NAME in Tracking.supported_backend:
        return
    plain = Tracking.__init__

    def with_watchdog(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        config = kwargs.get("config") or (args[3] if len(args) > 3 else None) or {}
        trainer = config.get("trainer", {})
        folder = Path(trainer.get("default_local_dir") or ".")
        settings = trainer.get("entrostat_watch") or {}
        self.logger[NAME] = WatchdogLogger(settings, trainer.get("total_training_steps"), folder)

    Tracking.__init__ = with_watchdog
    Tracking.supported_backend = [*Tracking.supported_backend, NAME]
    logger.warning("entrostat watchdog is installed in verl's Tracking")


if __name__ in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(","):
    install()
