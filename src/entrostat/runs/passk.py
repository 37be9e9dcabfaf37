"""pass@k and pass^k from n samples of which c are correct, without bias (Chen et al., arXiv 2107.03374, section 2.1).

    pass@k = 1 - C(n - c, k) / C(n, k)      at least one of k samples is correct
    pass^k = C(c, k) / C(n, k)              all of k samples are correct

Each is the share of the k-subsets of the n samples with that property, so its mean is the probability itself. No
subset of k exists where k > n: that is refused, never extrapolated. Store (n, c) per task; any k <= n follows later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean

from entrostat.errors import EntrostatError
from entrostat.runs.inference import Estimate, share_interval


class TooFewSamplesError(EntrostatError, ValueError):
    """A k for which no task has enough samples."""


@dataclass(frozen=True, slots=True)
class PassScore:
    """The mean of pass@k or pass^k over the tasks that have k samples. tasks: the number of all tasks."""

    name: str
    estimate: Estimate
    tasks: int

    @property
    def warning(self) -> str:
        """What keeps this mean from being compared with others, "" for nothing."""
        if self.estimate.n == self.tasks:
            return ""
        return (
            f"{self.name} is over {self.estimate.n} of {self.tasks} tasks, for the others have fewer samples: do not "
            "compare it with a mean over all"
        )


def pass_scores(counts: Mapping[str, tuple[int, int]], ks: Sequence[int]) -> list[PassScore]:
    """pass@k and, for k above 1 (they are the same at 1), pass^k for each k, from (n, c) of each task.

    TooFewSamplesError for a k that no task has as many samples of.
    """
    require_samples({task: n for task, (n, _) in counts.items()}, ks)
    scores = []
    for k in ks:
        enough = [(n, c) for n, c in counts.values() if n >= k]
        estimators = {f"pass@{k}": pass_at_k, **({f"pass^{k}": pass_hat_k} if k > 1 else {})}
        for name, estimator in estimators.items():
            scores.append(PassScore(name, share_interval([estimator(n, c, k) for n, c in enough]), len(counts)))
    return scores


def require_samples(samples: Mapping[str, int], ks: Sequence[int]) -> None:
    """TooFewSamplesError for a k above the number of samples of every task."""
    most = max(samples.values(), default=0)
    if too_large := [k for k in ks if k > most]:
        named = ", ".join(map(str, too_large))
        raise TooFewSamplesError(
            f"k is {named}, but no task has more than {most} samples, and pass@k takes k samples of a task; "
            "draw more samples or leave that k out"
        )


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


def mean_over_tasks(counts: Iterable[tuple[int, int]], k: int) -> float:
    """Mean pass@k over tasks of equal weight, each with its (n, c). ValueError: no tasks, or one with n < k."""
    values = [pass_at_k(n, c, k) for n, c in counts]
    if not values:
        raise ValueError("counts is empty; give (n, c) of at least one task")
    return fmean(values)


def _check(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"c is {c}, outside 0 ... n = {n}; c counts the correct ones among n samples")
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, outside 1 ... n = {n}; draw at least k samples per task, or use a smaller k")
