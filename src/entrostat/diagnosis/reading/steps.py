"""The step of every row: from the log's own column, whatever it is called, from what stands around it, or counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Any, Protocol

from entrostat.diagnosis.columns import canonical, mean, number

STEP = "step"  # what the step is called beside the quantities
LARGEST_STEP = 2**53  # beyond it a float no longer tells two steps apart
CLOCKS = (  # the last part of a step's name, best first
    *("step", "global_step", "global_steps", "current_steps", "training_step", "train_step", "trainer_step"),
    *("grpo_step", "rl_step", "ppo_step", "policy_step", "rollout_step", "update_step", "optimizer_step", "optim_step"),
    *("steps", "update", "updates", "iteration", "iterations", "iter", "learning_round", "rollout_id", "batch"),
    *("_step", "episode"),
)
ENDS = frozenset({"max_steps", "total_steps", "num_training_steps", "total_training_steps"})
RATIOS = {"global_step/max_steps": "global_step"}  # ms-swift: "12/400"
TIMES = re.compile(r"(?:^|/)(time|timing|timing_s|perf|performance|seconds|val|speed)[^/]*/")
OUT_OF = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*")
FULL = 0.98


class _Taken(Protocol):
    @property
    def values(self) -> list[float | None]: ...


@lru_cache(maxsize=16384)
def is_step_name(name: str) -> bool:
    """Whether a column's name is one of a step, or of the number of steps."""
    return _clock(name) is not None or canonical(name).rsplit("/", 1)[-1] in ENDS


def numbered(
    rows: Sequence[Mapping[str, Any]], taken: Mapping[str, _Taken], clock: Sequence[str] = ()
) -> tuple[list[tuple[int, dict[str, float]]], int | None, tuple[str, ...]]:
    """(step, quantity -> value) with growing steps; the last step of the run where a column says it; notes.

    Rows of one step are joined: of a quantity that comes several times in a row the mean is taken, as of several
    updates within one step; where the steps had gone back, as after a resume, the later value stands. A row without a
    step gets that of the row before it. If no row has a step they are counted. clock: the columns of the step, if they
    are to be chosen by no rule.
    """
    cells = zip(*(each.values for each in taken.values()), strict=True) if taken else ((),) * len(rows)
    values = [
        {quantity: value for quantity, value in zip(taken, own, strict=True) if value is not None} for own in cells
    ]
    informative = [index for index, own in enumerate(values) if own]
    names = tuple(clock) or _chosen_clock(rows, informative)
    steps = _steps_of(rows, informative, names)
    end = _end(rows, names)
    notes: list[str] = []
    if not any(step is not None for step in steps):
        steps = _counted([values[index] for index in informative])
        if steps:
            notes.append("no column of steps: the rows are numbered from 1")
    joined = _joined(steps, [values[index] for index in informative], notes)
    found = [(step, joined[step]) for step in sorted(joined)]
    notes += _thinned(found)
    return found, end, tuple(notes)


def step_and_total(value: Any) -> tuple[int | None, int | None]:
    """A step, and out of how many where the value says "12/400"; None for what is no whole number from 0."""
    total = None
    if isinstance(value, str) and (out_of := OUT_OF.fullmatch(value)):
        value, total = out_of[1], _whole(out_of[2])
    return _whole(value), total


def _whole(value: Any) -> int | None:
    try:
        found = number(value)
    except ValueError:
        return None
    return int(found) if found is not None and 0 <= found <= LARGEST_STEP and found == int(found) else None


@lru_cache(maxsize=16384)
def _clock(name: str) -> int | None:
    """The place of a step's name in `CLOCKS`; None for another column."""
    plain = canonical(name)
    leaf = RATIOS.get(plain, plain.replace(".", "/").rsplit("/", 1)[-1])
    return CLOCKS.index(leaf) if leaf in CLOCKS and not TIMES.search(plain) else None


def _chosen_clock(rows: Sequence[Mapping[str, Any]], informative: Sequence[int]) -> tuple[str, ...]:
    """The columns of the step: of the best name that nearly every row has, else of the name that most rows have."""
    clocks: dict[int, list[str]] = {}
    for name in dict.fromkeys(name for names in dict.fromkeys(map(tuple, rows)) for name in names):
        if (place := _clock(name)) is not None:
            clocks.setdefault(place, []).append(name)
    best: tuple[float, int] | None = None
    for place, names in sorted(clocks.items()):
        names.sort(key=_nearest)
        steps = [step for step in _steps_of(rows, informative, names) if step is not None]
        if not steps or (len(steps) > 2 and len(set(steps)) == 1):
            continue
        share = len(steps) / len(informative)
        if best is None or (best[0] < FULL and share > best[0]):
            best = (share, place)
    return tuple(clocks[best[1]]) if best else ()


def _nearest(name: str) -> tuple[int, int]:
    """Order of several columns of one step: `step`, `train/step`, others, an evaluation's last."""
    start = canonical(name).split("/")[0] if "/" in name else ""
    return (
        0 if not start else 1 if start.startswith("train") else 3 if start.startswith(("eval", "val")) else 2,
        len(name),
    )


def _steps_of(rows: Sequence[Mapping[str, Any]], places: Sequence[int], names: Sequence[str]) -> list[int | None]:
    """The steps of the rows at some places, each from the first of the columns that has one."""
    if len(names) == 1:
        cells: list[Any] = [rows[place].get(names[0]) for place in places]
        if set(map(type, cells)) == {int} and min(cells) >= 0 and max(cells) <= LARGEST_STEP:
            return cells
    return [_step_of(rows[place], names) for place in places]


def _step_of(row: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((step for name in names if name in row and (step := step_and_total(row[name])[0]) is not None), None)


def _end(rows: Sequence[Mapping[str, Any]], clock: Sequence[str]) -> int | None:
    """The number of steps that a column or the clock gives, if it is one from the first row on."""
    last = rows[-1] if rows else {}
    totals = [step_and_total(last[name])[1] for name in clock if name in last]
    totals += [_whole(value) for name, value in last.items() if canonical(name).rsplit("/", 1)[-1] in ENDS]
    return next((total for total in totals if total), None)


def _counted(values: Sequence[Mapping[str, float]]) -> list[int | None]:
    """1, 2, ...; a row of an evaluation alone belongs to the row before it."""
    steps: list[int | None] = []
    count = 0
    for own in values:
        count += set(own) != {"heldout"} or not count
        steps.append(count)
    return steps


def _joined(
    steps: Sequence[int | None], values: Sequence[Mapping[str, float]], notes: list[str]
) -> dict[int, dict[str, float]]:
    """Step -> quantity -> value; what was averaged, replaced or moved is added to the notes."""
    known = [step for step in steps if step is not None]
    if len(known) == len(steps) and all(before < after for before, after in pairwise(known)):
        return {step: dict(own) for step, own in zip(known, values, strict=True)}
    cells: dict[int, dict[str, tuple[int, list[float]]]] = {}
    resumed = replaced = averaged = moved = lost = 0
    last = 0 if known and known[0] > 0 else known[0] if known else 0
    for step, own in zip(steps, values, strict=True):
        if step is None:
            place = cells.setdefault(last, {})
            fresh = {quantity: value for quantity, value in own.items() if quantity not in place}
            moved, lost = moved + bool(fresh), lost + (not fresh)
            place.update({quantity: (resumed, [value]) for quantity, value in fresh.items()})
            continue
        resumed += step < last
        last = step
        place = cells.setdefault(step, {})
        again = {quantity: place[quantity][0] for quantity in own if quantity in place}
        averaged += resumed in again.values()
        replaced += any(segment != resumed for segment in again.values())
        for quantity, value in own.items():
            if again.get(quantity) == resumed:
                place[quantity][1].append(value)
            else:
                place[quantity] = (resumed, [value])
    for count, what in (
        (moved, "without a step: taken for the step of the row before"),
        (lost, "without a step left out"),
        (replaced, "of a step that had come before: the later one stands"),
        (averaged, "of the same step as the row before: their values are averaged"),
    ):
        if count:
            notes.append(f"{count} row{'' if count == 1 else 's'} {what}")
    return {step: {q: mean(own) for q, (_, own) in place.items()} for step, place in cells.items() if place}


def _thinned(rows: Sequence[tuple[int, Mapping[str, float]]]) -> list[str]:
    """A note if the run logs only every few steps."""
    steps = [step for step, values in rows if set(values) - {"heldout", "heldout_error"}]
    gaps = Counter(after - before for before, after in pairwise(steps))
    usual = median(gaps.elements()) if gaps else 1
    if len(steps) < 4 or usual < 2 or gaps[int(usual)] < 0.8 * (len(steps) - 1):
        return []
    return [f"a row every {usual:.0f} steps (logging_steps): when something began is known to {usual:.0f} steps"]


BAR = re.compile(r"(?<![\d:.])(\d{1,9})/(\d{1,9}) \[")
TOTAL = re.compile(r"Total optimization steps = ([\d,]+)|\"?max_steps\"?\s*[:=] ?(\d+)")
PER_EPOCH = re.compile(r"Num update steps per epoch = ([\d,]+)")
EPOCHS = re.compile(r"Num Epochs = ([\d,]+)")


class Bars:
    """Collects what the lines around the rows say about steps. total: the last step of the run, None if not said."""

    def __init__(self) -> None:
        self._totals: Counter[int] = Counter()
        self._states: list[tuple[int, int]] = []
        self._at: dict[int, int] = {}  # a row's identity -> how many states came before it
        self._said_total: int | None = None
        self._bar_total: int | None = None
        self._per_epoch: int | None = None
        self._epochs: int | None = None

    @property
    def total(self) -> int | None:
        """What Trainer announced, else the total of the bar that gave the rows their steps."""
        return self._said_total or self._bar_total

    def read(self, lines: Sequence[str], before: str | None = None) -> None:
        """Lines of the log in order; `before` is what of the last one stands before a row."""
        for line in (*lines[:-1], before) if before is not None else lines:
            if line is None or ("/" not in line and "=" not in line):
                continue
            for done, total in BAR.findall(line):
                self._totals[int(total)] += 1
                self._states.append((int(done), int(total)))
            if found := TOTAL.search(line):
                self._said_total = int((found[1] or found[2]).replace(",", "")) or None
            if found := PER_EPOCH.search(line):
                self._per_epoch = int(found[1].replace(",", "")) or None
            if found := EPOCHS.search(line):
                self._epochs = int(found[1].replace(",", "")) or None

    def mark(self, row: Mapping[str, Any]) -> None:
        """This row of the log stands here."""
        self._at[id(row)] = len(self._states)

    def number(self, rows: list[dict[str, Any]]) -> tuple[str, ...]:
        """Give the rows a step each if the log tells it; returns a note on how."""
        shapes = {names: any(name.startswith("eval") for name in names) for names in set(map(tuple, rows))}
        training = [index for index, row in enumerate(rows) if not shapes[tuple(row)]]
        for steps, how in (
            (self._by_bar([self._at[id(rows[index])] for index in training]), "the progress bar"),
            (self._by_epoch(rows, training), "the epoch and the number of updates in one"),
            (self._by_total(training), "the number of updates in all"),
        ):
            if steps and all(before < after for before, after in pairwise(steps)):
                for index, step in zip(training, steps, strict=True):
                    rows[index]["step"] = step
                return (f"no column of steps: they are taken from {how}",)
        return ()

    def _by_bar(self, places: Sequence[int]) -> list[int]:
        """The state of the training's bar when each row was printed: of the bar that has moved on before every row."""
        for total, _ in self._totals.most_common(8) if places else ():
            if self._said_total not in (None, total):
                continue
            steps = [self._state(place, total) for place in places]
            if all(steps) and all(before < after for before, after in pairwise(steps)):
                self._bar_total = total
                return steps
        return []

    def _state(self, place: int, total: int) -> int:
        """The last state of a bar before a place; 0 for none among the last 200."""
        return next((done for done, own in reversed(self._states[max(place - 200, 0) : place]) if own == total), 0)

    def _by_epoch(self, rows: Sequence[dict[str, Any]], training: Sequence[int]) -> list[int]:
        per_epoch = self._per_epoch or (self.total / self._epochs if self.total and self._epochs else None)
        if not per_epoch:
            return []
        epochs = [_number(rows[index].get("epoch")) for index in training]
        return [round(epoch * per_epoch) for epoch in epochs if epoch] if all(epochs) else []

    def _by_total(self, training: Sequence[int]) -> list[int]:
        """Evenly to the total, if the bar has reached it."""
        if not self.total or not training or self.total % len(training):
            return []
        whole = any(done == total == self.total for done, total in self._states)
        every = self.total // len(training)
        return [every * place for place in range(1, len(training) + 1)] if whole else []


def _number(value: Any) -> float | None:
    try:
        return number(value)
    except ValueError:
        return None
