"""Numbers that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import NOT_FINITE
from entrostat.runs.finding import Finding


@detector("not-finite")
@dataclass(frozen=True, kw_only=True)
class NotFinite(Detector):
    """A NaN, an infinity or a number beyond 1e100 among loss, gradient norm, entropy, reward or KL at the last row.

    Critical once a quantity has been so `patience` times in a row. Before that it is a warning, and over as soon as the
    quantity is finite again: the mean of an empty mask is NaN, and mixed precision skips single steps whose gradient
    overflowed, while weights that a NaN has passed through never bring back a finite number.
    """

    columns: ClassVar = ("loss", "grad_norm", "entropy", "reward", "kl")
    confirm: int = 1
    release: int = 1
    patience: int = 3

    @override
    def find(self, history: History, end: int) -> Finding | None:
        broken = {name: self._streak(history, name) for name in self.columns}
        broken = {name: steps for name, steps in broken.items() if steps}
        if not broken:
            return None
        longest = max(len(steps) for steps in broken.values())
        onset = min(steps[0] for steps in broken.values())
        since = "" if onset == history.step else f", since step {onset}"
        return Finding(
            kind=self.kind,
            severity="critical" if longest >= self.patience else "warning",
            step=history.step,
            onset=onset,
            summary=f"{_spoken(list(broken))} NaN, infinite or beyond 1e100{since}.",
            evidence={f"{name}_broken_steps": len(steps) for name, steps in broken.items()},
            columns=tuple(sorted(broken, key=lambda name: -broken[name][-1])[:3]),
            remedies=NOT_FINITE,
        )

    def _streak(self, history: History, name: str) -> list[int]:
        """The steps of a quantity's last values in a row that were none."""
        broken = history.broken.get(name, [])
        finite = history.series(name).steps
        last = int(finite[-1]) if len(finite) else -1
        streak = []
        for step in reversed(broken):
            if step <= last:
                break
            streak.append(step)
        return streak[::-1]


def _spoken(names: list[str]) -> str:
    plain = [name.replace("_", " ") for name in names]
    return f"{plain[0]} is" if len(plain) == 1 else f"{', '.join(plain[:-1])} and {plain[-1]} are"
