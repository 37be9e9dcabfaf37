"""A log as the detectors take it, and how raw rows become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from entrostat.diagnose.columns import QUANTITIES, recognise_row, step_of

RawRow = Mapping[str, Any]
Row = tuple[int, dict[str, float]]


class LogError(ValueError):
    """A log that cannot be read at all; the message names it, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class RawLog:
    """What a reader of one format found.

    rows: oldest first. end: the last step that the run was to take, None where the log does not say. notes: what was
    left out, each a sentence.
    """

    format: str
    rows: Iterable[RawRow]
    end: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Log:
    """A log, read as far as it goes.

    rows: (step, quantity -> value) with growing steps; a value may be NaN or infinite, as it was logged. used: quantity
    -> the columns it was read from.
    """

    name: str
    format: str
    rows: list[Row]
    used: Mapping[str, tuple[str, ...]]
    end: int | None
    notes: tuple[str, ...] = field(default=())

    @property
    def lacking(self) -> tuple[str, ...]:
        """The quantities that the log does not have."""
        return tuple(quantity for quantity in QUANTITIES if quantity not in self.used)


def assemble(name: str, raw: RawLog) -> Log:
    """Raw rows as a log: steps in order, each once, columns by their known names.

    Rows of one step are joined; where a column comes twice, as after a resume, the later value stands. Rows without a
    step are numbered if no row has one, and left out otherwise.
    """
    by_step: dict[int, dict[str, float]] = {}
    used: dict[str, dict[str, None]] = {}
    text: Counter[str] = Counter()
    stepless: list[dict[str, float]] = []
    repeated = 0
    for row in raw.rows:
        found = recognise_row(row)
        for quantity, names in found.names.items():
            used.setdefault(quantity, {}).update(dict.fromkeys(names))
        text.update(found.text)
        step = step_of(row)
        if step is None:
            if found.values:
                stepless.append(found.values)
            continue
        place = by_step.setdefault(step, {})
        repeated += any(quantity in place for quantity in found.values)
        place.update(found.values)
    notes = [*raw.notes]
    if stepless and not by_step:
        by_step = dict(enumerate(stepless, start=1))
        notes.append("no column of steps: the rows are numbered from 1")
    elif stepless:
        notes.append(f"{_count(len(stepless), 'row')} without a step left out")
    if repeated:
        notes.append(f"{_count(repeated, 'row')} of a step that had come before: the later one stands")
    notes += [
        f"column {column}: {_count(times, 'value')} of text where numbers belong left out"
        for column, times in sorted(text.items())
    ]
    if not by_step:
        notes.append("nothing logged yet that the detectors know")
    return Log(
        name=name,
        format=raw.format,
        rows=[(step, by_step[step]) for step in sorted(by_step) if by_step[step]],
        used={quantity: tuple(used[quantity]) for quantity in QUANTITIES if quantity in used},
        end=raw.end,
        notes=tuple(notes),
    )


def flatten(row: Mapping[str, Any], depth: int = 4) -> dict[str, Any]:
    """Nested dictionaries as dotted names; verl's file logger wraps its columns in `data`, which is left away."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and depth:
            inner = flatten(value, depth - 1)
            flat.update(inner if key == "data" else {f"{key}.{name}": deep for name, deep in inner.items()})
        else:
            flat[str(key)] = value
    return flat


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
