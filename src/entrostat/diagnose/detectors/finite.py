"""Numbers that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History
from entrostat.diagnose.remedies import NOT_FINITE


@dataclass(frozen=True, kw_only=True)
class NotFinite(Detector):
    """A NaN, an infinity or a number beyond 1e100 among loss, gradient norm, entropy, reward or KL at the last row.

    Critical, for a step with such a number has usually spoilt the weights. One of the gradient norm alone is a warning
    until it has come `patience` times: mixed precision skips single steps whose gradient overflowed.
    """

    kind: ClassVar = "not-finite"
    columns: ClassVar = ("loss", "grad_norm", "entropy", "reward", "kl")
    confirm: int = 1
    patience: int = 3

    @override
    def find(self, history: History, end: int) -> Finding | None:
        broken = {name: history.broken[name] for name in self.columns if name in history.broken}
        now = [name for name, steps in broken.items() if steps[-1] == history.step]
        if not now:
            return None
        skipped = now == ["grad_norm"] and len(broken["grad_norm"]) < self.patience
        name = now[0]
        return Finding(
            kind=self.kind,
            severity="warning" if skipped else "critical",
            step=history.step,
            onset=broken[name][0],
            summary=f"{_spoken(now)} NaN, infinite or beyond 1e100; {name} first at step {broken[name][0]}.",
            evidence={f"{name}_broken_steps": len(steps) for name, steps in broken.items()},
            columns=(name,),
            remedies=NOT_FINITE,
        )


def _spoken(names: list[str]) -> str:
    plain = [name.replace("_", " ") for name in names]
    return f"{plain[0]} is" if len(plain) == 1 else f"{', '.join(plain[:-1])} and {plain[-1]} are"
