"""Target entropies as curves over a run."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Curve:
    """Entropy as a function of the completed share of the run, through points (share, entropy).

    unit: `nats`, or `start` for multiples of the first measured entropy, which not every part accepts. Between two
    points the curve is a line or half a cosine wave; before the first and after the last it is constant.
    Raises ValueError for no point, shares that do not increase within [0, 1], an entropy that is not positive,
    any other shape and any other unit.
    """

    points: tuple[tuple[float, float], ...]
    shape: Literal["linear", "cosine"] = "linear"
    unit: Literal["nats", "start"] = "nats"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"Curve.shape is {self.shape!r}; give 'linear' or 'cosine'")
        if self.unit not in ("nats", "start"):
            raise ValueError(f"Curve.unit is {self.unit!r}; give 'nats' or 'start'")
        shares = [share for share, _ in self.points]
        if not shares or shares != sorted(set(shares)) or not 0 <= shares[0] <= shares[-1] <= 1:
            raise ValueError(f"Curve.points: shares {shares} must increase within [0, 1], one point at least")
        for share, entropy in self.points:
            if not (entropy > 0 and math.isfinite(entropy)):
                raise ValueError(f"Curve.points: entropy is {entropy} at {share}; give a positive number")

    @classmethod
    def constant(cls, entropy: float) -> Curve:
        """The same entropy during the whole run."""
        return cls(((0.0, entropy),))

    @classmethod
    def between(cls, start: float, end: float, shape: Literal["linear", "cosine"] = "linear") -> Curve:
        """From one entropy at the start to another at the end."""
        return cls(((0.0, start), (1.0, end)), shape)

    def in_nats(self, reader: str) -> Curve:
        """This curve. Raises ValueError, naming the setting `reader`, if its unit is not nats."""
        if self.unit != "nats":
            raise ValueError(f"{reader}: unit is {self.unit!r}, and this method reads nats; give a curve in nats")
        return self

    def at(self, share: float, start: float | None = None) -> float:
        """The entropy in nats when `share` of the run is completed; start: the first measured entropy in nats.

        Raises ValueError for a curve relative to the start without one.
        """
        if self.unit == "nats":
            return self._through(share)
        if start is None:
            raise ValueError("Curve.unit is 'start', and no entropy has been measured; give a curve in nats")
        return start * self._through(share)

    def _through(self, share: float) -> float:
        after = bisect_right(self.points, (share, math.inf))
        if after in (0, len(self.points)):
            return self.points[max(after - 1, 0)][1]
        (left, start), (right, end) = self.points[after - 1], self.points[after]
        weight = (share - left) / (right - left)
        if self.shape == "cosine":
            weight = (1 - math.cos(math.pi * weight)) / 2
        return start + weight * (end - start)


def target_curve(target: float | Curve, name: str) -> Curve:
    """A target entropy as a curve. Raises ValueError, with the setting's name, if it is not positive or not in nats."""
    if isinstance(target, Curve):
        return target.in_nats(name)
    if not target > 0:
        raise ValueError(f"{name} is {target}; give a positive number of nats")
    return Curve.constant(target)
