"""What the watchdogs in TRL and in verl share: the findings in a log, the peak, and keeping its checkpoint."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrostat.diagnosis import Acting, recognise_row
from entrostat.diagnosis.notify import Webhook
from entrostat.diagnosis.watchdog import RESTART, ROLL_BACK
from entrostat.runs.finding import Finding
from entrostat.runs.ownership import is_ours, remove, scratch, seal, sweep

logger = logging.getLogger(__name__)

KEEPING = ("keep-peak", "roll-back")
SMOOTH = 8  # steps whose rewards are averaged into a score


class PeakWatchdog:
    """The detectors over a host's log, and the step with the highest score.

    The score of a step is the held-out one where the host evaluates, else the mean reward of the last `smooth` logs.
    webhook: the environment variable that holds the address to which findings are sent.
    peak: (step, score) of the highest score so far. ValueError: the variable holds no address, or the action is one of
    the embedded engine's only.
    """

    def __init__(self, acting: Acting, webhook: str | None, smooth: int = SMOOTH) -> None:
        if acting.action == RESTART:
            raise ValueError(f"action is {RESTART!r}, which this trainer cannot follow; give {ROLL_BACK} or keep-peak")
        self.acting, self.smooth = acting, smooth
        self.webhook = Webhook.from_environment(webhook) if webhook else None
        self.watchdog = acting.watchdog()
        self.peak: tuple[int, float] | None = None
        self.rolled_back = False

    @property
    def keeping(self) -> bool:
        """Whether peaks are to be kept."""
        return self.acting.action in KEEPING

    @property
    def may_roll_back(self) -> bool:
        """Whether a finding that is acted on rolls back: there is a peak, and it is the first time."""
        return self.acting.action == "roll-back" and self.peak is not None and not self.rolled_back

    def observe(self, step: int, row: Mapping[str, Any]) -> list[Finding]:
        """What a row of the host's log shows for the first time."""
        return self.watchdog.observe(step, recognise_row(row).values)

    def is_new_peak(self, step: int, *, due: bool = True) -> bool:
        """Whether `step`, whose row was observed, has the highest score so far; it is then the peak.

        due: whether a mean reward may count now. A first maximum stays the peak when it is met again.
        """
        heldout, reward = self.watchdog.history.series("heldout"), self.watchdog.history.series("reward")
        if len(heldout):
            score = float(heldout.values[-1]) if heldout.steps[-1] == step else None
        else:
            score = float(reward.values[-self.smooth :].mean()) if due and len(reward) >= self.smooth else None
        if score is None or (self.peak is not None and score <= self.peak[1]):
            return False
        self.peak = step, score
        return True

    def begin_again(self) -> None:
        """Training was rolled back to the peak: start a new watchdog, and do not roll back again."""
        self.rolled_back = True
        self.watchdog = self.acting.watchdog(self.watchdog.end)

    def send(self, finding: Finding) -> None:
        """Send a finding to the webhook, if there is one; a failure is logged."""
        if self.webhook and (failure := self.webhook.send(finding)):
            logger.warning("%s", failure)


def append(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a watchdog's file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def keep(checkpoint: Path, target: Path) -> None:
    """Put the content of the folder `checkpoint` at `target`, replacing the content of an earlier call.

    By hard links, which need no disk space and no time; by copies if the file system has none. OSError: it cannot be
    read or kept, or `target` was not made here; the earlier content is then intact.
    """
    refuse_foreign(target)
    if target.parent.is_dir():
        sweep(target.parent)
    fresh = scratch(target.parent)
    try:
        shutil.copytree(checkpoint, fresh, copy_function=_link)
        seal(fresh)
        remove(target)
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def refuse_foreign(target: Path) -> None:
    """Raise FileExistsError if `target` has something that `keep` did not put there, or that was changed since."""
    if (target.exists() or target.is_symlink()) and not is_ours(target):
        raise FileExistsError(
            f"{target}: the peak is to be kept here, but this was not made by the watchdog; "
            "move it to another place, or choose another output folder"
        )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
