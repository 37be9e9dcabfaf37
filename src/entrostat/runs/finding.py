"""What a detector reports and a page shows: a finding, with its evidence in numbers and its remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["note", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "critical")  # a note is a remark, and no failure


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change to make.

    action: in words. reason: why it helps. evidence: what a study measured, with the number of runs and an interval or
    a range; empty where nobody has measured it. source: where that is shown. settings: host -> keys of its
    configuration with their values; `recipe` is ours. A host that has no such setting is left out.
    """

    action: str
    reason: str
    source: str
    evidence: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One failure, as seen at one step.

    kind: its name, as in `entropy-collapse`. step: the row at which the evidence sufficed. onset: where it began.
    evidence: numbers, by what they are. columns: the quantities to draw. levels: horizontal lines to draw, by their
    names, in the unit of the first column. first_step: the row at which it was first reported, where `step` may be a
    later one with newer numbers. over: the step from which on later rows no longer showed it, None while they do.
    ValueError: another severity.
    """

    kind: str
    severity: Severity
    step: int
    onset: int
    summary: str
    evidence: Mapping[str, float]
    columns: tuple[str, ...]
    levels: Mapping[str, float] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    over: int | None = None
    first_step: int | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is {self.severity!r}; choose one of {', '.join(SEVERITIES)}")

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data, JSON-able."""
        return asdict(self)
