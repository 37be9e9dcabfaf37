"""Which columns of a log are read for which quantity."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal

from entrostat.diagnosis.columns import (
    BY_DATASET,
    BY_WORDS,
    QUANTITIES,
    canonical,
    mean,
    number,
    recognise,
    without_prefix,
)
from entrostat.diagnosis.reading.errors import LogError
from entrostat.diagnosis.reading.questions import Question
from entrostat.diagnosis.reading.steps import STEP, is_step_name

By = Literal["name", "words", "map"]
Rows = Sequence[Mapping[str, Any]]
PLAIN = re.compile(r"-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?")
SUPERVISED = frozenset({"mean_token_accuracy", "token_accuracy", "rewards/chosen", "rewards/margins", "logps/chosen"})
REWARDED = frozenset({"reward", "reward_std", "heldout", "equal_groups"})
FULL_ENOUGH = 0.5  # a better name is passed over for one with more than twice as many values


@dataclass(frozen=True, slots=True)
class Taken:
    """columns: what a quantity is read from. values: one per row, None for none. by: how the columns were found."""

    columns: tuple[str, ...]
    values: list[float | None]
    by: By


def take_columns(
    rows: Rows, mapped: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Taken], tuple[str, ...], tuple[str, ...]]:
    """Quantity -> its columns with their values; the columns of numbers left unread; notes.

    Of several names of one quantity the first of the schema's list is read, unless it has far fewer values; columns of
    the same rank, such as two validation sets, are averaged. Numbers that cannot be what the name says are converted,
    or the next name is tried. LogError: `mapped` names an unknown quantity or column.
    """
    counts = _filled_cells(rows)
    _require_known(mapped, counts)
    slime = any(name.startswith("rollout/") for name in counts)
    groups: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for name in counts:
        match = recognise(name)
        if match and match.rank == BY_DATASET and not slime:
            continue
        if match and match.quantity not in mapped and not any(name in columns for columns in mapped.values()):
            groups.setdefault(match.quantity, []).append((match.rank, (name,)))
    question = Question()
    taken: dict[str, Taken] = {}
    for quantity in _in_order():
        found = [(-1, tuple(mapped[quantity]))] if quantity in mapped else _by_rank(groups.get(quantity, []), counts)
        for rank, names in found:
            columns, values = _values(rows, names, question.text)
            if not columns:
                continue
            judged = question.ask(quantity, columns, values)
            if judged is not None:
                taken[quantity] = Taken(columns, judged, _by(rank))
                break
    notes = _without_supervised_entropy(counts, taken, mapped)
    used = {name for each in taken.values() for name in each.columns} | set(mapped.get(STEP, ()))
    return taken, _unread(rows, counts, used), (*notes, *question.notes(used))


def _without_supervised_entropy(
    counts: Mapping[str, int], taken: dict[str, Taken], mapped: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Leave out the entropy of a run that learns from given completions, which is to fall with the loss; say so."""
    marks = [name for name in counts if canonical(name) in SUPERVISED]
    if not marks or "entropy" not in taken or "entropy" in mapped or not taken.keys().isdisjoint(REWARDED):
        return ()
    del taken["entropy"]
    return (
        f"entropy: there is no reward but {marks[0]}, so the run is supervised and its entropy is to fall; left out",
    )


def _filled_cells(rows: Rows) -> Counter[str]:
    """How many rows have something in each column; rows of the same columns are counted together."""
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(tuple(row), []).append(row)
    counts: Counter[str] = Counter()
    for names, own in alike.items():
        for name, cells in zip(names, zip(*(row.values() for row in own), strict=True), strict=True):
            kinds = set(map(type, cells))
            counts[name] += (
                len(cells) - (cells.count(None) if NoneType in kinds else 0) - (cells.count("") if str in kinds else 0)
            )
    return +counts


def _by(rank: int) -> By:
    return "map" if rank < 0 else "words" if rank >= BY_WORDS else "name"


def _in_order() -> Iterator[str]:
    """The quantities, those first that help to question others."""
    first = ("reward_std", "length")
    yield from first
    yield from (quantity for quantity in QUANTITIES if quantity not in first)


def _by_rank(
    found: Sequence[tuple[int, tuple[str, ...]]], counts: Mapping[str, int]
) -> list[tuple[int, tuple[str, ...]]]:
    """Names of one rank together, best rank first; ranks with far fewer values than another listed one last."""
    ranks: dict[int, list[str]] = {}
    for rank, (name,) in found:
        ranks.setdefault(rank, []).append(name)
    most = {rank: max(counts[name] for name in names) for rank, names in ranks.items()}
    listed = max((count for rank, count in most.items() if rank < BY_WORDS), default=0)
    groups = []
    for rank, names in ranks.items():
        names = _one_prefix(names)
        full = tuple(name for name in names if counts[name] >= FULL_ENOUGH * most[rank])
        groups.append((most[rank] < FULL_ENOUGH * listed, rank, full))
    return [(rank, names) for _, rank, names in sorted(groups)]


def _one_prefix(names: Sequence[str]) -> list[str]:
    """Of `reward`, `rollout/reward` and `train/reward` the first, in this order: they are not parts of one mean."""
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        plain = canonical(name)
        bare = without_prefix(plain)
        place = 0 if plain == bare else 1 if plain.startswith("rollout/") else 2
        best[bare] = min(best.get(bare, (place, name)), (place, name), key=lambda each: each[0])
    return [name for _, name in best.values()]


def _values(rows: Rows, names: tuple[str, ...], text: Counter[str]) -> tuple[tuple[str, ...], list[float | None]]:
    """The mean of some columns in each row, and those that hold a number; other cells are counted in `text`."""
    values: list[float | None] = []
    live: dict[str, None] = {}
    if len(names) == 1:
        values = _numbers(rows, names[0], text)
        return (names if any(value is not None for value in values) else ()), values
    for row in rows:
        own = []
        for name in names:
            try:
                value = number(row.get(name))
            except ValueError:
                text[name] += 1
                continue
            if value is not None:
                own.append(value)
                live[name] = None
        values.append(mean(own) if own else None)
    return tuple(name for name in names if name in live), values


def _numbers(rows: Rows, name: str, text: Counter[str]) -> list[float | None]:
    """A column's cells as numbers; those that hold none are counted in `text`."""
    cells: list[Any] = [row.get(name) for row in rows]
    kinds = set(map(type, cells))
    if kinds <= {float, NoneType}:
        return cells
    texts = cells if kinds == {str} else []
    if texts and all(map(PLAIN.fullmatch, texts)):  # tables and consoles: usually text such as 0.5
        return list(map(float, texts))
    values: list[float | None] = []
    for cell in cells:
        try:
            values.append(number(cell))
        except ValueError:
            text[name] += 1
            values.append(None)
    return values


def _unread(rows: Rows, counts: Mapping[str, int], used: set[str]) -> tuple[str, ...]:
    """Columns that were taken for nothing and whose first value is a number."""
    left = {name for name in counts if name not in used and not is_step_name(name)}
    found: dict[str, None] = {}
    for row in rows:
        for name in [name for name in row if name in left]:
            value = row[name]
            if value is None or value == "":
                continue
            left.discard(name)
            try:
                if number(value) is not None:
                    found[name] = None
            except ValueError:
                continue
        if not left:
            break
    return tuple(found)


def _require_known(mapped: Mapping[str, Sequence[str]], counts: Mapping[str, int]) -> None:
    for quantity, columns in mapped.items():
        if quantity not in QUANTITIES and quantity != STEP:
            raise LogError(f"--map: got quantity {quantity!r}; choose from {STEP}, {', '.join(QUANTITIES)}")
        for column in columns:
            if column not in counts:
                near = difflib.get_close_matches(column, list(counts), 3, 0.4) or list(counts)[:8]
                raise LogError(
                    f"--map: the log has no column {column!r} for {quantity}; "
                    + (f"nearest: {', '.join(near)}" if near else "it has no columns at all")
                )
