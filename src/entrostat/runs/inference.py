"""Means, contrasts and tests over seeds, honest about how few there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEW = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its percentile bootstrap interval (Efron 1979).

    low and high are None for a single value. warning says how far the interval can be trusted; None for 10 values
    or more. values: what was averaged, for the reader to see.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]
    warning: str | None

    @property
    def n(self) -> int:
        """How many values were averaged."""
        return len(self.values)


def bootstrap_mean(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean over seeds, with the percentile bootstrap interval of `confidence`.

    ValueError: no values, one that is not finite, or a confidence outside 0 ... 1.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"values is {list(values)}; give at least one finite number, one a seed")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, outside 0 ... 1; .95 is usual")
    low, high = _interval(data, confidence, resamples, seed) if data.size > 1 else (None, None)
    return Estimate(float(data.mean()), low, high, tuple(data.tolist()), _warning(data.size, confidence))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of a - b over seeds that both share, in the same order.

    ValueError: unequal lengths, and as in bootstrap_mean.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b {len(b)}; pair them seed by seed")
    return bootstrap_mean([x - y for x, y in zip(a, b, strict=True)], confidence, resamples, seed)


def sign_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of the sign test for a against b, seed by seed; ties are left out, and all ties give 1.

    ValueError: unequal lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b {len(b)}; pair them seed by seed")
    from scipy import stats  # takes half a second to import: not for those who ask for no test

    wins = sum(x > y for x, y in zip(a, b, strict=True))
    losses = sum(x < y for x, y in zip(a, b, strict=True))
    return 1.0 if wins + losses == 0 else float(stats.binomtest(wins, wins + losses).pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values corrected for their number by Holm's step-down method (Holm 1979), in the order given.

    adjusted of the i-th smallest of m = max over j <= i of min(1, (m - j + 1) p_(j)). ValueError: one outside 0 ... 1.
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError(f"p_values is {list(p_values)}; each lies in 0 ... 1")
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return tuple(adjusted.tolist())


def _interval(data: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    from scipy import stats

    interval = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _warning(n: int, confidence: float) -> str | None:
    if n >= FEW:
        return None
    if n == 1:
        return "n = 1: no interval"
    if n**-n > (1.0 - confidence) / 2:
        return f"n = {n}: the interval is the least and the greatest value; read the values themselves"
    return f"n = {n}: the interval is too narrow for so few seeds; read the values themselves"
