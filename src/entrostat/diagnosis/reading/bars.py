"""The steps of a log whose rows have none, from what stands around them: progress bars, epochs, totals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from entrostat.diagnosis.columns import number

BAR = re.compile(r"(?<![\d:.])(\d{1,9})/(\d{1,9}) \[")
TOTAL = re.compile(r"Total optimization steps = ([\d,]+)|\"?max_steps\"?\s*[:=] ?(\d+)")
PER_EPOCH = re.compile(r"Num update steps per epoch = ([\d,]+)")
EPOCHS = re.compile(r"Num Epochs = ([\d,]+)")


class Bars:
    """Collects what the lines around the rows say about steps. total: the last step of the run, None if not said."""

    def __init__(self) -> None:
        self._totals: Counter[int] = Counter()
        self._states: list[tuple[int, int]] = []
        self._at: list[int] = []
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

    def mark(self) -> None:
        """The next row of the log stands here."""
        self._at.append(len(self._states))

    def number(self, rows: list[dict[str, Any]]) -> tuple[str, ...]:
        """Give the rows a step each if the log tells it; returns a note on how."""
        training = [index for index, row in enumerate(rows) if not any(name.startswith("eval") for name in row)]
        for steps, how in (
            (self._by_bar(training), "the progress bar"),
            (self._by_epoch(rows, training), "the epoch and the number of updates in one"),
            (self._by_total(training), "the number of updates in all"),
        ):
            if steps and all(before < after for before, after in pairwise(steps)):
                for index, step in zip(training, steps, strict=True):
                    rows[index]["step"] = step
                return (f"no column of steps: they are taken from {how}",)
        return ()

    def _by_bar(self, training: Sequence[int]) -> list[int]:
        """The state of the training's bar when each row was printed: of the bar that has moved on before every row."""
        for total, _ in self._totals.most_common(8) if training else ():
            if self._said_total not in (None, total):
                continue
            steps = [self._state(self._at[index], total) for index in training]
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
