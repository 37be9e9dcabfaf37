"""The detectors over a run, one row at a time, and which of their findings are acted on.

What is done about them (stop, roll back) is in the trainers' own files: `engine/watchdog.py`,
`integrations/trl/watchdog.py` and `integrations/verl/watchdog.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from entrostat.diagnosis.detectors import DETECTORS, Detector, detectors_named
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import with_half_the_rate
from entrostat.runs.finding import SEVERITIES, Finding, Severity

EVERY_ROW = 500  # the first rows are all looked at
LOOKS, CLOSE_LOOKS = 80, 250  # after n rows every n / 80th, and every n / 250th while something shows unreported


@dataclass
class _Case:
    """What is known of one detector's failure.

    recent: (step, rank of the severity found there, -1 for none) of the last looks. standing: the failure as it is now,
    None where there is none. first: the step at which it was first reported at the rank `reported` or, above a note, at
    all. quiet: looks in a row that did not show it. since, looks: from which step on, and how often in a row, it shows.
    """

    detector: Detector
    recent: deque[tuple[int, int]] = field(init=False)
    standing: Finding | None = None
    first: int = 0
    reported: int = -1
    quiet: int = 0
    since: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.detector.confirm)

    @property
    def pending(self) -> bool:
        """Whether a failure showed at the last look that is not reported yet, or is over before long."""
        return (self.looks > 0 and self.reported < 1 and self.recent[-1][1] > 0) or self.quiet > 0


class Watchdog:
    """Takes what a run logs and reports each failure once, and once more when it becomes critical.

    A failure that later rows no longer show is over; if it comes again it is reported again. A log that is read
    afterwards goes through here row by row, so it gets the very findings that a live run gets.
    end: the last step that the run will take; where it is not known, a run of the length so far is thought to be as
    long again.
    findings: every report, in order. standing(), past: what is true of the run now, and what was.
    """

    def __init__(self, end: int | None = None, detectors: Sequence[Detector] = DETECTORS) -> None:
        self.history = History()
        self.findings: list[Finding] = []
        self.past: list[Finding] = []
        self.end = end
        self._cases = [_Case(detector) for detector in detectors]
        self._rows = 0
        self._looked = 0
        self._next = 0  # the row of the next look
        self._fresh: set[str] = set()  # quantities that have a new value since the last look

    def observe(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Take the quantities logged at `step`; returns what is found now for the first time.

        Rows come in the order of their steps; several rows of one step may each bring some of its quantities.
        """
        self._rows += step > self.history.step
        fresh = self.history.append(step, values)
        self._fresh |= fresh
        if self._looked < self._rows < self._next and not self._broken(step, fresh):
            return []
        self._looked = self._rows
        end = max(self.end or 2 * self.history.step, self.history.step)
        new = []
        for case in self._cases:
            if not self._fresh.isdisjoint(case.detector.columns):
                new += self._look(case, step, end)
        self._fresh.clear()
        looks = CLOSE_LOOKS if any(case.pending for case in self._cases) else LOOKS
        self._next = self._rows + (max(self._rows // looks, 1) if self._rows >= EVERY_ROW else 1)
        self.findings += new
        return new

    def standing(self) -> list[Finding]:
        """The failures that the run has now, the worst first, then by their onset."""
        found = [self._fitted(case.standing) for case in self._cases if case.standing]
        return sorted(found, key=lambda finding: (-SEVERITIES.index(finding.severity), finding.onset))

    def _broken(self, step: int, fresh: set[str]) -> bool:
        """Whether a number of this row is none: that is looked at at once."""
        broken = self.history.broken
        return bool(broken) and any(broken.get(name, [-1])[-1] == step for name in fresh)

    def _look(self, case: _Case, step: int, end: int) -> list[Finding]:
        detector, recent = case.detector, case.recent
        finding = detector.find(self.history, end)
        if finding and recent and self._fresh.isdisjoint(finding.columns):
            return []  # what it is about is as it was at the last look
        again = bool(recent) and recent[-1][0] == step
        if again:
            recent.pop()  # the same step again, with more of its quantities
        recent.append((step, SEVERITIES.index(finding.severity) if finding else -1))
        if finding is None:
            case.looks = 0
            if case.standing and not detector.persists(self.history, case.standing):
                self._not_shown(case, step)
            return []
        if case.standing and case.quiet and finding.onset > case.first:
            self._end(case, max(finding.onset, case.standing.step))  # it had healed, and has come again
        case.quiet = 0
        if not case.looks:
            case.since = step
        case.looks += not (again and case.looks)
        agreed = min(rank for _, rank in recent) if len(recent) == detector.confirm else -1
        suspected = case.reported <= 0 < agreed and not detector.believed(finding, case.since, case.looks)
        agreed = min(agreed, 0) if suspected else agreed
        if case.standing is None and agreed < 0:
            return []
        new = agreed > case.reported
        if new:
            case.first = case.first if case.reported > 0 else step  # a note is a remark, no failure
            case.reported = agreed
        rank = max(agreed, min(case.reported, max(rank for _, rank in recent)))
        onset = min(finding.onset, case.first)
        summary = f"Suspected: {finding.summary}" if suspected else finding.summary
        case.standing = replace(finding, severity=SEVERITIES[rank], onset=onset, first_step=case.first, summary=summary)
        return [self._fitted(case.standing)] if new else []

    def _not_shown(self, case: _Case, step: int) -> None:
        case.quiet += 1
        if case.quiet >= case.detector.release:
            self._end(case, step)

    def _end(self, case: _Case, step: int) -> None:
        if case.standing:
            self.past.append(self._fitted(replace(case.standing, over=step)))
        case.standing, case.reported, case.quiet = None, -1, 0

    def _fitted(self, finding: Finding) -> Finding:
        """The finding, with half of the highest learning rate that the run has logged in its remedies."""
        rates = self.history.series("learning_rate").values
        rate = float(rates.max()) if len(rates) else None
        return replace(finding, remedies=with_half_the_rate(finding.remedies, rate))


ROLL_BACK, RESTART = "roll-back", "restart-from-traces"
Action = Literal["note", "stop", "keep-peak", "roll-back", "restart-from-traces"]
ACTIONS: tuple[Action, ...] = get_args(Action)
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
