"""pass@k and pass^k from n samples of which c are correct, without bias (Chen et al., arXiv 2107.03374, section 2.1).

    pass@k = 1 - C(n - c, k) / C(n, k)      at least one of k samples is correct
    pass^k = C(c, k) / C(n, k)              all of k samples are correct

Each is the share of the k-subsets of the n samples with that property, so its mean is the probability itself. No
subset of k exists where k > n: that is refused, never extrapolated. Store (n, c) a task; any k <= n follows later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import comb
from statistics import fmean


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is correct, given c correct of n.

    ValueError: c outside 0 ... n, or k outside 1 ... n.
    """
    _check(n, c, k)
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """pass^k, the probability that all of k samples are correct, given c correct of n. ValueError: as in pass_at_k."""
    _check(n, c, k)
    return comb(c, k) / comb(n, k)


def mean_over_tasks(
    counts: Iterable[tuple[int, int]], k: int, estimator: Callable[[int, int, int], float] = pass_at_k
) -> float:
    """Mean of `estimator` over tasks of equal weight, each with its (n, c). ValueError: no tasks, or one refuses k."""
    values = [estimator(n, c, k) for n, c in counts]
    if not values:
        raise ValueError("counts is empty; give (n, c) of at least one task")
    return fmean(values)


def _check(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"c is {c}, outside 0 ... n = {n}; c counts the correct ones among n samples")
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, outside 1 ... n = {n}; draw at least k samples a task, or ask for a smaller k")
