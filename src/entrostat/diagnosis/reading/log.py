"""A log as the detectors take it, and how raw rows become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from entrostat.diagnosis.columns import QUANTITIES
from entrostat.diagnosis.reading.choice import By, take_columns
from entrostat.diagnosis.reading.errors import LogError
from entrostat.diagnosis.reading.steps import STEP, numbered

RawRow = Mapping[str, Any]
Row = tuple[int, dict[str, float]]

__all__ = ["Log", "LogError", "RawLog", "RawRow", "Row", "assemble", "flatten"]


@dataclass(frozen=True, slots=True)
class RawLog:
    """What a reader of one format found.

    rows: oldest first, columns by the names that the log gives them. end: the last step that the run was to take, None
    where the log does not say. notes: what was left out, each a sentence. file: what was read of a folder.
    """

    format: str
    rows: Sequence[RawRow]
    end: int | None = None
    notes: tuple[str, ...] = ()
    file: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Log:
    """A log, read as far as it goes.

    rows: (step, quantity -> value) with growing steps; a value may be NaN or infinite, as it was logged. used: quantity
    -> the columns it was read from. by: quantity -> how these were found: a listed `name`, the `words` of the name, or
    your `map`. unread: columns of numbers that were taken for nothing. file: what was read of a folder.
    """

    name: str
    format: str
    rows: list[Row]
    used: Mapping[str, tuple[str, ...]]
    end: int | None
    notes: tuple[str, ...] = field(default=())
    by: Mapping[str, By] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    file: str | None = None

    def __repr__(self) -> str:
        return f"Log({self.name!r}, {self.format}, {len(self.rows)} rows of {', '.join(self.used) or 'nothing known'})"

    @property
    def lacking(self) -> tuple[str, ...]:
        """The quantities that the log does not have."""
        return tuple(quantity for quantity in QUANTITIES if quantity not in self.used)


def assemble(name: str, raw: RawLog, columns: Mapping[str, Sequence[str]] | None = None) -> Log:
    """Raw rows as a log: steps in order, each once, quantities by their columns, impossible numbers questioned.

    columns: quantity, or `step`, -> columns to read it from, whatever they are called. LogError: an unknown quantity
    or column.
    """
    columns = dict(columns or {})
    clock = columns.get(STEP, ())
    taken, unread, notes = take_columns(raw.rows, columns)
    rows, end, said = numbered(raw.rows, taken, clock)
    notes = (*raw.notes, *said, *notes)
    if not rows:
        notes = (*notes, nothing_known(raw.rows, unread))
    return Log(
        name=name,
        format=raw.format,
        rows=rows,
        used={quantity: taken[quantity].columns for quantity in QUANTITIES if quantity in taken},
        end=raw.end or end,
        notes=notes,
        by={quantity: taken[quantity].by for quantity in QUANTITIES if quantity in taken},
        unread=unread,
        file=raw.file,
    )


def nothing_known(rows: Sequence[RawRow], unread: Sequence[str]) -> str:
    """Why a log without a row for the detectors has none."""
    if not rows:
        return "nothing logged yet"
    columns = f" ({', '.join(unread[:8])}{', ...' if len(unread) > 8 else ''})" if unread else ""
    return (
        f"{len(rows)} row{'' if len(rows) == 1 else 's'} in which no column{columns} is known for a quantity; "
        "name one with --map QUANTITY=COLUMN, as in --map entropy=my/column"
    )


def flatten(row: Mapping[str, Any], depth: int = 4) -> dict[str, Any]:
    """Nested dictionaries as dotted names; verl's file logger wraps its columns in `data`, which is left away."""
    if dict not in set(map(type, row.values())):
        return dict(row)
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and depth:
            inner = flatten(value, depth - 1)
            flat.update(inner if key == "data" else {f"{key}.{name}": deep for name, deep in inner.items()})
        else:
            flat[str(key)] = value
    return flat
