"""Intervals, contrasts and tests over seeds and tasks, exact where n allows it and plain about what n does not allow.

A seed is the unit of replication: one number per seed goes in. Where seeds and tasks both vary, use
`hierarchical_bootstrap`; averaging over tasks first leaves out how far the result depends on the tasks drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Method = Literal["none", "t", "bootstrap-t", "logit-t", "hierarchical bootstrap"]

FEW = 10
EXACT = 16  # sign flips are enumerated up to 2^16, and drawn at random beyond
# What 95 % intervals cover, by simulation: of normal, of exponential and of two-peaked values (some runs fall, most do
# not: 30 % near .05, 70 % near .6), at the n for which mean_interval takes each; logit-t of shares, from n = 3 on.
COVERAGE = {
    "none": "one value, no interval",
    "t": "Student's t interval, covers 95 % if values are normal, 88 to 90 % if exponential, 70 to 95 % if two-peaked",
    "bootstrap-t": "bootstrap-t interval, covers 95 % if values are normal or two-peaked, 92 to 95 % if exponential",
    "logit-t": "Student's t interval of the mean's logit, covers 92 to 97 % if values scatter about .5 or near 0 or 1, "
    "70 to 96 % if two-peaked",
    "hierarchical bootstrap": "hierarchical bootstrap over seeds and tasks, covers 92 % or more",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    low and high are None where there is no interval. values: what was averaged, for the reader to see. method: how the
    interval was made.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]
    method: Method
    confidence: float = 0.95

    @property
    def n(self) -> int:
        """How many values were averaged."""
        return len(self.values)

    @property
    def note(self) -> str:
        """Which interval this is, for which n, and how far it can be trusted."""
        few = "; with so few, read the values themselves" if 1 < self.n < FEW else ""
        return f"n = {self.n}: {COVERAGE[self.method]}{few}"


@dataclass(frozen=True, slots=True)
class Test:
    """A two-sided p-value, and the least that any data of this size could give."""

    __test__ = False  # not a test case for pytest

    p_value: float
    least: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """A paired difference: its interval, the paired t-test's p, the exact tests, and p after Holm's correction."""

    difference: Estimate
    p_value: float
    sign: Test
    permutation: Test
    p_holm: float


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with Student's interval, mean -+ t_{n-1} s / sqrt(n) (Student 1908); no interval for one value.

    Exact for normal values at any n >= 2. ValueError: no values, one that is not finite, a confidence outside 0 ... 1.
    """
    data = _checked(values, confidence)
    half = (
        _half_width(float(data.std(ddof=1)) / math.sqrt(data.size), data.size - 1, confidence) if data.size > 1 else 0
    )
    return _estimate(data, -half, half, "t", confidence)


def bootstrap_t(values: Sequence[float], confidence: float = 0.95, resamples: int = 4_000, seed: int = 0) -> Estimate:
    """Mean with the bootstrap-t interval (Efron and Tibshirani 1993, section 12.5), which follows the values' skew.

    With s and s* the standard deviations of the values and of a resample, and q the quantiles over resamples of
        t* = (mean* - mean) / (s* / sqrt(n)),
    the interval is [mean - q_{1 - a/2} s / sqrt(n), mean - q_{a/2} s / sqrt(n)]. A resample of equal values has s* = 0
    and t* = -inf, 0 or inf; where a quantile is infinite, and for fewer than FEW values, whose resamples are too few,
    this is t_interval. ValueError: as there.
    """
    data = _checked(values, confidence)
    spread = float(data.std(ddof=1)) if data.size > 1 else 0.0
    if data.size < FEW or spread == 0.0:
        return t_interval(values, confidence)
    drawn = data[np.random.default_rng(seed).integers(data.size, size=(resamples, data.size))]
    away, spreads = drawn.mean(1) - data.mean(), drawn.std(1, ddof=1)
    flat = spreads < 1e-12 * spread
    endless = np.where(away == 0, 0.0, np.copysign(np.inf, away))
    studentized = np.where(flat, endless, away / np.where(flat, 1.0, spreads))
    below, above = np.quantile(studentized, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    if not (np.isfinite(below) and np.isfinite(above)):
        return t_interval(values, confidence)
    return _estimate(data, -above * spread, -below * spread, "bootstrap-t", confidence)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with the interval that suits n: none for one value, Student's t below FEW values, bootstrap-t from there on.

    ValueError: as in t_interval.
    """
    return bootstrap_t(values, confidence) if len(values) >= FEW else t_interval(values, confidence)


def share_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of shares, such as pass@k by seed or by task, with an interval that stays within 0 ... 1.

    Student's interval on the logit scale, where the mean m has the standard error s / (sqrt(n) m (1 - m)) (the delta
    method; Agresti 2013, section 16.1):
        logit m -+ t_{n-1} s / (sqrt(n) m (1 - m)),   mapped back.
    t_interval and bootstrap_t of shares near 0 or 1 end beyond them. Where all values are equal the interval is their
    value. ValueError: as in t_interval, and a value outside 0 ... 1.
    """
    data = _checked(values, confidence)
    if data.min() < 0.0 or data.max() > 1.0:
        raise ValueError(f"values is {data.tolist()}; shares lie in 0 ... 1. mean_interval takes other numbers")
    mean, spread = float(data.mean()), float(data.std(ddof=1)) if data.size > 1 else 0.0
    if spread == 0.0 or not 0.0 < mean < 1.0:
        return _estimate(data, 0.0, 0.0, "logit-t", confidence)
    error = spread / (math.sqrt(data.size) * mean * (1 - mean))
    odds, factor = mean / (1 - mean), math.exp(min(_half_width(error, data.size - 1, confidence), 600.0))
    low, high = odds / factor, odds * factor
    return _estimate(data, low / (1 + low) - mean, high / (1 + high) - mean, "logit-t", confidence)


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of a - b over seeds (or tasks) that both share, in the same order, with mean_interval's interval.

    ValueError: unequal lengths, and as in t_interval.
    """
    return mean_interval(_differences(a, b).tolist(), confidence)


def paired_t(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test.

    Differences that are all equal have no variance to go by: then p is the sign test's. 1 for a single pair.
    ValueError: unequal lengths, and as in t_interval.
    """
    from scipy import stats  # takes half a second to import: not for those who ask for no test

    differences = _differences(a, b)
    _checked(differences, 0.95)
    if differences.size < 2 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return sign_test(a, b).p_value
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_test(a: Sequence[float], b: Sequence[float]) -> Test:
    """Exact two-sided sign test for a against b, pair by pair; ties are left out, and all ties give 1.

    Of m pairs that differ the least p is 2^(1 - m). ValueError: unequal lengths.
    """
    from scipy import stats

    differences = _differences(a, b)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if wins + losses == 0:
        return Test(1.0, 1.0)
    return Test(float(stats.binomtest(wins, wins + losses).pvalue), 2.0 ** (1 - wins - losses))


def permutation_test(a: Sequence[float], b: Sequence[float], resamples: int = 99_999, seed: int = 0) -> Test:
    """Two-sided test of mean(a - b) = 0 by flipping the signs of the differences (Fisher 1935).

    Exact up to EXACT differences that are not 0, whose least p is 2^(1 - m); beyond that `resamples` sign patterns are
    drawn and the least p is 2 / (resamples + 1). ValueError: unequal lengths.
    """
    from scipy import stats

    differences = _differences(a, b)
    differences = differences[differences != 0]
    m = int(differences.size)
    if m < 2:
        return Test(1.0, 1.0)
    found = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**m if m <= EXACT else resamples,
        batch=1024,
        rng=np.random.default_rng(seed),
    )
    least = 2.0 ** (1 - m) if m <= EXACT else 2.0 / (resamples + 1)
    return Test(max(float(found.pvalue), least), least)


def hierarchical_bootstrap(
    values: ArrayLike,
    crossed: bool = True,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """Mean over seeds and tasks, with an interval for new seeds and new tasks. values: (seeds, tasks), at least 2 x 2.

    crossed: all seeds were measured on the same tasks, and rows and columns are drawn independently (Owen 2007, the
    pigeonhole bootstrap); otherwise each seed has its own tasks, and tasks are drawn within each drawn seed (Davison
    and Hinkley 1997, section 3.8). Departure from both: percentiles are too narrow for a few seeds, so the interval is
    mean -+ t_{m-1} x (the resampled means' standard deviation) x sqrt(m / (m - 1)), with m the number of seeds, or
    the lesser of seeds and tasks where they are crossed. The estimate's values are the seeds' means.
    ValueError: another shape, a value that is not finite, a confidence outside 0 ... 1.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"values has the shape {table.shape}; give (seeds, tasks), at least two of each")
    means = _checked(table.mean(1), confidence)
    seeds, tasks = table.shape
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for i in range(resamples):
        rows = table[generator.integers(seeds, size=seeds)]
        if crossed:
            drawn[i] = rows[:, generator.integers(tasks, size=tasks)].mean()
        else:
            drawn[i] = np.take_along_axis(rows, generator.integers(tasks, size=rows.shape), axis=1).mean()
    least = min(seeds, tasks) if crossed else seeds
    error = float(drawn.std(ddof=1)) * math.sqrt(least / (least - 1))
    half = _half_width(error, least - 1, confidence)
    return _estimate(means, -half, half, "hierarchical bootstrap", confidence)


def planned_contrasts(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], confidence: float = 0.95
) -> dict[str, Contrast]:
    """Each pair's difference a - b, with paired_t's p corrected over all of them by `holm`.

    Give all contrasts that were planned, and only those: the correction counts them. A pair of a single seed has p = 1.
    ValueError: as in paired_interval.
    """
    found = {
        name: Contrast(paired_interval(a, b, confidence), paired_t(a, b), sign_test(a, b), permutation_test(a, b), 1.0)
        for name, (a, b) in pairs.items()
    }
    corrected = holm([one.p_value for one in found.values()])
    return {name: replace(one, p_holm=p) for (name, one), p in zip(found.items(), corrected, strict=True)}


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


def _checked(values: ArrayLike, confidence: float) -> Array:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"values is {data.tolist()}; give at least one finite number, one per seed")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, outside 0 ... 1; .95 is usual")
    return data


def _differences(a: Sequence[float], b: Sequence[float]) -> Array:
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b {len(b)}; pair them seed by seed")
    return np.subtract(a, b, dtype=np.float64)


def _half_width(error: float, degrees: int, confidence: float) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + confidence) / 2, degrees)) * error


def _estimate(data: Array, below: float, above: float, method: Method, confidence: float) -> Estimate:
    """The mean with the interval from mean + below to mean + above."""
    mean = float(data.mean())
    if data.size == 1:
        return Estimate(mean, None, None, (mean,), "none", confidence)
    return Estimate(mean, mean + below, mean + above, tuple(data.tolist()), method, confidence)
