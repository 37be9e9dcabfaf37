"""What was found wrong with a run, as the page tells it.

The detectors stand on a higher floor than this room: whoever builds the page asks them and brings the answers here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One change to make: in words, with its reason and source, and as keys of a recipe (YAML, or empty)."""

    action: str
    reason: str
    source: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One finding about a run.

    severity: `warning` or `critical`. onset, found, step: where it began, where it was first found, and the step that
    summary and evidence describe. panel: title of the figure that shows it, None where there is none.
    """

    kind: str
    severity: str
    onset: int
    found: int
    step: int
    summary: str
    evidence: Mapping[str, float]
    changes: Sequence[Change]
    panel: str | None
