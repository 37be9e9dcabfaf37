"""Gradients that fade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History
from entrostat.diagnose.remedies import FADE
from entrostat.diagnose.statistics import median, rolling_median


@dataclass(frozen=True, kw_only=True)
class GradientFade(Detector):
    """A gradient norm that has fallen to next to nothing: nothing is being learned.

        median of the last `window` values <= share x median of the first `first`

    Gradients shrink by a factor of 3 to 5 as groups come to agree; a twentieth is another order. Critical at a
    hundredth, where the update is smaller than the rounding of bfloat16 weights.
    """

    kind: ClassVar = "gradient-fade"
    columns: ClassVar = ("grad_norm",)
    share: float = 0.05
    gone: float = 0.01
    first: int = 10
    window: int = 10

    @override
    def find(self, history: History, end: int) -> Finding | None:
        steps, values = history.series("grad_norm")
        if len(values) < self.first + self.window:
            return None
        reference, now = median(values[: self.first]), median(values[-self.window :])
        if now > self.share * reference or reference <= 0:
            return None
        above = np.flatnonzero(rolling_median(values, 3) > 0.5 * reference)
        return Finding(
            kind=self.kind,
            severity="critical" if now <= self.gone * reference else "warning",
            step=history.step,
            onset=int(steps[int(above[-1]) + 2]) if len(above) else int(steps[0]),
            summary=f"The gradient has faded to {now:.3g}, {now / reference:.1%} of its first steps' {reference:.3g}.",
            evidence={"reference": reference, "now": now},
            columns=self.columns,
            levels={"first steps": reference},
            remedies=FADE,
        )
