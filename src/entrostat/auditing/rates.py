"""How often attempts are judged wrongly, with the interval that their number allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `n`, with the exact (Clopper-Pearson 1934) 95 % interval of the share.

    The attempts are a list and no random sample: the interval says what so many attempts could tell of a policy that
    drew from such a list, and nothing of attacks that are not in it. low and high are None where n is 0.
    """

    count: int
    n: int
    low: float | None
    high: float | None

    @property
    def share(self) -> float | None:
        """count / n, None where n is 0."""
        return self.count / self.n if self.n else None


def rate(count: int, n: int) -> Rate:
    """The rate of `count` in `n`. ValueError: count outside 0 ... n."""
    if not 0 <= count <= n:
        raise ValueError(f"count is {count}, outside 0 ... {n}")
    if n == 0:
        return Rate(0, 0, None, None)
    from scipy import stats  # takes half a second to import

    interval = stats.binomtest(count, n).proportion_ci(confidence_level=0.95, method="exact")
    return Rate(count, n, float(interval.low), float(interval.high))
