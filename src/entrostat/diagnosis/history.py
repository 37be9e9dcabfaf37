"""What a run has logged so far: one series per quantity, growing row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LARGEST = 1e100

Steps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


class Series(NamedTuple):
    """Where a quantity was logged as a finite number: steps, growing, and values; both (n,)."""

    steps: Steps
    values: Values

    def __len__(self) -> int:
        return len(self.steps)


class History:
    """The rows of a run up to now. Each quantity has a series of its own: what was not logged leaves no gap."""

    def __init__(self) -> None:
        self.step = -1
        self.broken: dict[str, list[int]] = {}
        self._columns: dict[str, _Column] = {}

    def append(self, step: int, values: Mapping[str, float]) -> set[str]:
        """Add what was logged at `step`; returns the quantities that have a new value.

        A value that is not finite, or so large that its square would not be, goes to `broken`, quantity -> steps. Of a
        quantity that has this step already the new value stands, as of a line that was read half-written; one that has
        a later step keeps what it has.
        """
        fresh = set()
        columns = self._columns
        for quantity, value in values.items():
            if -LARGEST < value < LARGEST:
                column = columns.get(quantity)
                if column is None:
                    column = columns[quantity] = _Column()
                if step > column.last:  # the usual case, of every row of a log
                    column.last = step
                    column.new.append((step, value))
                    fresh.add(quantity)
                elif column.replace(step, value):
                    fresh.add(quantity)
            else:
                seen = self.broken.setdefault(quantity, [])
                if not seen or seen[-1] < step:
                    seen.append(step)
                    fresh.add(quantity)
        self.step = max(self.step, step)
        return fresh

    def series(self, quantity: str) -> Series:
        """The series of a quantity; of length 0 where it was never logged. A view: do not write into it."""
        column = self._columns.get(quantity)
        return column.series() if column else _EMPTY

    def __contains__(self, quantity: str) -> bool:
        return quantity in self._columns


_EMPTY = Series(np.empty(0, np.int64), np.empty(0))


class _Column:
    """Two arrays that double when they are full, and what came since they were last looked at."""

    def __init__(self) -> None:
        self.last = -(2**62)
        self.new: list[tuple[int, float]] = []
        self._size = 0
        self._steps = np.empty(64, np.int64)
        self._values = np.empty(64)

    def replace(self, step: int, value: float) -> bool:
        """Take another value for the last step; returns whether it was that step, and the value is another."""
        steps, values = self.series()
        grown = step == steps[-1] and value != values[-1]
        if grown:
            values[-1] = value
        return bool(grown)

    def series(self) -> Series:
        if self.new:
            first, self._size = self._size, self._size + len(self.new)
            if self._size > len(self._steps):
                more = max(self._size, 2 * len(self._steps)) - first
                self._steps = np.concatenate([self._steps[:first], np.empty(more, np.int64)])
                self._values = np.concatenate([self._values[:first], np.empty(more)])
            self._steps[first : self._size], self._values[first : self._size] = zip(*self.new, strict=True)
            self.new.clear()
        return Series(self._steps[: self._size], self._values[: self._size])
