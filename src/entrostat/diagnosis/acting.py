"""Which findings are acted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from entrostat.diagnosis.detectors import DETECTORS, detectors_named
from entrostat.diagnosis.watchdog import Watchdog
from entrostat.runs.finding import SEVERITIES, Finding, Severity

Action = Literal["note", "stop", "keep-peak", "roll-back"]
ACTIONS: tuple[Action, ...] = ("note", "stop", "keep-peak", "roll-back")
FAILURES = tuple(severity for severity in SEVERITIES if severity != "note")  # a note is a remark: nothing acts on it
KINDS = tuple(detector.kind for detector in DETECTORS)


@dataclass(frozen=True, slots=True)
class Acting:
    """What is done, and from which severity on, about findings of which kinds (None: all).

    detectors: those of other packages that watch beside ours, by entry point or as `my_package.module:Name`.
    ValueError: an unknown action, severity, kind or detector.
    """

    action: Action = "note"
    severity: Severity = "critical"
    kinds: Sequence[str] | None = None
    detectors: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action is {self.action!r}; choose one of {', '.join(ACTIONS)}")
        if self.severity not in FAILURES:
            raise ValueError(f"severity is {self.severity!r}; choose one of {', '.join(FAILURES)}")
        if self.kinds is not None and (isinstance(self.kinds, str) or not isinstance(self.kinds, Sequence)):
            raise ValueError(f"kinds is {self.kinds!r}; give a list of them")
        known = [detector.kind for detector in detectors_named(self.detectors)]
        for kind in self.kinds or ():
            if kind not in known:
                raise ValueError(f"kinds: got {kind!r}; choose from {', '.join(known)}")

    def watchdog(self, end: int | None = None) -> Watchdog:
        """A watchdog with every detector, over a run that ends with the step `end`."""
        return Watchdog(end, detectors_named(self.detectors))

    def on(self, finding: Finding) -> bool:
        """Whether this finding is acted on."""
        severe = SEVERITIES.index(finding.severity) >= SEVERITIES.index(self.severity)
        return self.action != "note" and severe and (not self.kinds or finding.kind in self.kinds)
