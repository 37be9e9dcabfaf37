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
        for quantity, value in values.items():
            if not abs(value) < LARGEST:
                seen = self.broken.setdefault(quantity, [])
                if not seen or seen[-1] < step:
                    seen.append(step)
                    fresh.add(quantity)
            else:
                column = self._columns.get(quantity)
                if column is None:
                    column = self._columns[quantity] = _Column()
                if column.append(step, value):
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
    """Two arrays that double when they are full."""

    def __init__(self) -> None:
        self.size = 0
        self.steps = np.empty(64, np.int64)
        self.values = np.empty(64)

    def append(self, step: int, value: float) -> bool:
        if self.size and step <= self.steps[self.size - 1]:
            grown = step == self.steps[self.size - 1] and value != self.values[self.size - 1]
            if grown:
                self.values[self.size - 1] = value
            return bool(grown)
        if self.size == len(self.steps):
            self.steps = np.concatenate([self.steps, np.empty_like(self.steps)])
            self.values = np.concatenate([self.values, np.empty_like(self.values)])
        self.steps[self.size], self.values[self.size] = step, value
        self.size += 1
        return True

    def series(self) -> Series:
        return Series(self.steps[: self.size], self.values[: self.size])
