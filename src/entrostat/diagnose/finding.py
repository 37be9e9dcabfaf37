"""What a detector reports: a finding, with its evidence in numbers and its remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("warning", "critical")


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change to make.

    action: in words. recipe: keys of our recipe with their values. trl, verl: the same in the host's own keys, where it
    has them. reason: why it helps. source: where that is shown.
    """

    action: str
    reason: str
    source: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    trl: Mapping[str, Any] = field(default_factory=dict)
    verl: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One failure, as seen at one step.

    kind: its name, as in `entropy-collapse`. step: the row at which the evidence sufficed. onset: where it began.
    evidence: numbers, by what they are. columns: the quantities to draw. levels: horizontal lines to draw, by their
    names, in the unit of the first column.
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

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data, JSON-able."""
        return asdict(self)
