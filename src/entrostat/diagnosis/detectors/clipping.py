"""Clipping that takes the gradient of too many tokens, told apart by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import CLIPPING
from entrostat.diagnosis.score import has_risen
from entrostat.diagnosis.statistics import began, median
from entrostat.runs.finding import Finding

SIDES = {"clip_low": "lower", "clip_high": "upper", "clip": "either"}


@detector("clip-saturation")
@dataclass(frozen=True, kw_only=True)
class ClipSaturation(Detector):
    """A clip fraction that stays high: the update is mostly thrown away, and what is left of it is one-sided.

        median of the last `window` values of a side > limit

    Token-level clipping at .2 cuts less than 5 % of the tokens in healthy runs of ours; a fifth on one side is far
    outside. Sides are told apart where the log does; critical from `worse` on, a warning at most while the score has
    risen with it. No finding then where the share was high from the start: a rule that clips whole sequences (GSPO)
    cuts half of the tokens by design.
    """

    columns: ClassVar = ("clip_low", "clip_high", "clip")
    limit: float = 0.2
    worse: float = 0.4
    window: int = 8

    @override
    def find(self, history: History, end: int) -> Finding | None:
        apart = "clip_low" in history or "clip_high" in history
        shares = {}
        for name in ("clip_low", "clip_high") if apart else ("clip",):
            values = history.series(name).values
            if len(values) >= self.window:
                shares[name] = median(values[-self.window :])
        if not shares:
            return None
        name = max(shares, key=lambda side: shares[side])
        now = shares[name]
        if now <= self.limit:
            return None
        series = history.series(name)
        onset = began(series, self.limit, upwards=True)
        risen = has_risen(history, onset)
        if risen and median(series.values[: self.window]) > self.limit / 2:
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if now > self.worse and not risen else "warning",
            step=history.step,
            onset=onset,
            summary=f"{now:.0%} of the tokens are clipped at {_side(name)}: their gradient is lost.",
            evidence=shares,
            columns=tuple(shares),
            levels={"limit": self.limit},
            remedies=CLIPPING[name],
        )


def _side(name: str) -> str:
    return "one side or the other (the log does not tell which)" if name == "clip" else f"the {SIDES[name]} side"
