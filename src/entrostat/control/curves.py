"""Target entropies as curves over a run."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Curve:
    """Entropy in nats as a function of the completed share of the run, through points (share, nats).

    Between two points the curve is a line or half a cosine wave; before the first and after the last it is constant.
    Raises ValueError for no point, shares that do not increase within [0, 1], an entropy that is not positive,
    and any other shape.
    """

    points: tuple[tuple[float, float], ...]
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"Curve.shape is {self.shape!r}; give 'linear' or 'cosine'")
        shares = [share for share, _ in self.points]
        if not shares or shares != sorted(set(shares)) or not 0 <= shares[0] <= shares[-1] <= 1:
            raise ValueError(f"Curve.points: shares {shares} must increase within [0, 1], one point at least")
        for share, entropy in self.points:
            if not (entropy > 0 and math.isfinite(entropy)):
                raise ValueError(f"Curve.points: entropy is {entropy} at {share}; give a positive number of nats")

    @classmethod
    def constant(cls, entropy: float) -> Curve:
        """The same entropy during the whole run."""
        return cls(((0.0, entropy),))

    @classmethod
    def between(cls, start: float, end: float, shape: Literal["linear", "cosine"] = "linear") -> Curve:
        """From one entropy at the start to another at the end."""
        return cls(((0.0, start), (1.0, end)), shape)

    def at(self, share: float) -> float:
        """The entropy when `share` of the run is completed."""
        after = bisect_right(self.points, (share, math.inf))
        if after in (0, len(self.points)):
            return self.points[max(after - 1, 0)][1]
        (left, start), (right, end) = self.points[after - 1], self.points[after]
        weight = (share - left) / (right - left)
        if self.shape == "cosine":
            weight = (1 - math.cos(math.pi * weight)) / 2
        return start + weight * (end - start)
