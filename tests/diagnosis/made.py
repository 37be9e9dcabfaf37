"""Columns made to order, and what a detector finds at their last row."""

from dataclasses import replace

import numpy as np

from entrostat.diagnosis import DETECTORS
from entrostat.diagnosis.history import History

DETECTOR = {detector.kind: detector for detector in DETECTORS}
EVERY = 10  # steps between two rows, so that a step is never mistaken for a row


def recorded(columns):
    """The history of the columns; the last values of each are in the last row."""
    history, n = History(), max(map(len, columns.values()))
    for row in range(n):
        values = {name: float(column[row - n]) for name, column in columns.items() if row - n >= -len(column)}
        history.append(EVERY * (row + 1), values)
    return history


def look(kind, columns, end=None, **fields):
    """What a detector finds at the last row of the columns."""
    history = recorded(columns)
    return replace(DETECTOR[kind], **fields).find(history, end or history.step)


def level(n, value):
    return np.full(n, float(value))


def jump(before, after, n=10, late=10):
    """`n` values of one kind, then `late` of another: the change is at row n + 1."""
    return np.concatenate([level(n, before), level(late, after)])


def wobble(n, around, by):
    return around + by * (-1.0) ** np.arange(n)


LIVELY = wobble(12, 100, 10)  # lengths that vary as between batches
