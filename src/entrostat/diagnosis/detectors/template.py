"""Completions that have become one template, whatever the prompt says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import COLLAPSE, TEMPLATE
from entrostat.diagnosis.score import change_since, has_risen
from entrostat.diagnosis.statistics import began, median, noise, rolling_median
from entrostat.runs.finding import Finding


@detector("template-collapse")
@dataclass(frozen=True, kw_only=True)
class TemplateCollapse(Detector):
    """Completions that no longer depend on their prompts, or that have all become the same.

    Where the log has the mutual information I(X; Z) of prompts and completions, per token or per completion:

        now < kept x best   and   best - now > certain x noise     best = greatest median of 3 before, now of the last 3
        entropy now > stays x its value where I was best

    A policy that draws from one template whatever it is asked keeps its entropy, so that the entropy cannot tell; where
    the entropy is gone too, `entropy-collapse` is the finding. Completions that grow g times longer have 1/g of the
    information per token, so now is multiplied by g. A warning; critical where the score has fallen; none where it has
    risen. Source: RAGEN-2, arXiv 2604.06268; kept, stays and certain are our choice.

    Where the log has no such column, a template shows once it takes the entropy with it:

        noise of ln length over the last `window` values < still x that over the first
        entropy now < spent x its start                   and the score has not risen since
    """

    columns: ClassVar = ("information", "information_nats", "length", "entropy")
    kept: float = 0.4
    stays: float = 0.5
    certain: float = 6.0
    least: int = 8
    """Values of the information before anything is said."""
    still: float = 0.1
    spent: float = 0.2
    window: int = 12
    unlike: float = 0.01
    """Less noise than this at the start, and a loss of it says nothing."""

    @override
    def find(self, history: History, end: int) -> Finding | None:
        for name in ("information", "information_nats"):
            if len(history.series(name)):
                return self._by_information(history, name)
        return self._by_length(history)

    def _by_information(self, history: History, name: str) -> Finding | None:
        series = history.series(name)
        if len(series) < self.least:
            return None
        before = rolling_median(series.values[:-3], 3)
        place = int(before.argmax())
        best, now = float(before[place]), median(series.values[-3:])
        best_step = int(series.steps[place + 1])
        longer = max(1.0, _growth(history, "length", best_step)) if name == "information" else 1.0
        now_as_long = max(now, 0.0) * longer
        if now_as_long >= self.kept * best or best - now_as_long <= self.certain * noise(series.values):
            return None
        within = "conditional_entropy" if "conditional_entropy" in history else "entropy"
        left = _growth(history, within, best_step)
        if left <= self.stays:
            return None
        onset = began(series, best - 0.3 * (best - now), upwards=False)
        change = change_since(history, onset)
        if change is not None and change.risen:
            return None
        seen = within in history
        unit = "nats per token" if name == "information" else "nats per completion"
        return Finding(
            kind=self.kind,
            severity="critical" if change is not None and change.fallen else "warning",
            step=history.step,
            onset=onset,
            summary=(
                f"Completions depend less and less on their prompts: their mutual information is {max(now, 0.0):.3g} "
                f"{unit}, {best:.3g} at step {best_step}"
                + (f", while {left:.0%} of the entropy is left, which therefore does not show it." if seen else ".")
            ),
            evidence={
                "best": best,
                "best_step": float(best_step),
                "now": now,
                **({"entropy_left": left} if seen else {}),
            },
            columns=(name, *((within,) if seen else ())),
            levels={"best": best},
            remedies=TEMPLATE,
        )

    def _by_length(self, history: History) -> Finding | None:
        length, entropy = history.series("length"), history.series("entropy")
        if len(length) < 2 * self.window or len(entropy) < 2 * self.window:
            return None
        start, now = median(entropy.values[:5]), median(entropy.values[-5:])
        if now >= self.spent * start:
            return None
        early, late = length.values[: self.window], length.values[-self.window :]
        usual = noise(early) / max(float(early.mean()), 1.0)
        left = noise(late) / max(float(late.mean()), 1.0)
        if usual < self.unlike or left >= self.still * usual:
            return None
        onset = int(length.steps[-self.window])
        if has_risen(history, began(entropy, 0.5 * start, upwards=False)):
            return None
        return Finding(
            kind=self.kind,
            severity="warning",
            step=history.step,
            onset=onset,
            summary=(
                f"All completions have become alike: their mean length stays at {float(late.mean()):.0f} tokens "
                f"(it varied by {usual:.0%} between steps at first, by {left:.1%} now) with {now / start:.0%} of the "
                "entropy left."
            ),
            evidence={"variation_at_first": usual, "variation_now": left, "entropy_left": now / start},
            columns=("length", "entropy"),
            remedies=COLLAPSE,
        )


def _growth(history: History, name: str, step: int) -> float:
    """A quantity's median over its last 5 values by that over the 5 up to `step`; 1 where it was not logged then."""
    steps, values = history.series(name)
    before = values[: int(steps.searchsorted(step, side="right"))][-5:]
    start = median(before) if len(before) else 0.0
    return median(values[-5:]) / start if start > 0 else 1.0
