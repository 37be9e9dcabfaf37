"""Curves with no more points than a figure can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STRETCHES = 240  # a panel is about as many points wide


def extremes(*curves: Sequence[float], stretches: int = STRETCHES) -> NDArray[np.intp]:
    """Indices to draw, ascending: in each of equal stretches where each curve is lowest and highest, and both ends.

    The curves are of one length. All indices where that is at most two a stretch: a short run is drawn as it is.
    """
    length = len(curves[0])
    if length <= 2 * stretches:
        return np.arange(length)
    kept = [0, length - 1]
    for curve in curves:
        for stretch in np.array_split(np.arange(length), stretches):
            values = np.asarray(curve)[stretch]
            kept += [stretch[values.argmin()], stretch[values.argmax()]]
    return np.unique(kept)


def summed(counts: NDArray[np.float64], stretches: int = STRETCHES) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Columns of `counts` (curves, length) added up in equal stretches, and the index at which each ends."""
    length = counts.shape[1]
    if length <= 2 * stretches:
        return np.arange(length), counts
    edges = np.linspace(0, length, stretches, endpoint=False, dtype=np.intp)
    return np.append(edges[1:], length) - 1, np.add.reduceat(counts, edges, axis=1)
