"""Gradients that fade, are 0 from the start, or explode, and numbers that are none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History, Series, Values
from entrostat.diagnosis.remedies import FADE, GRADIENT_EXPLOSION, NO_GRADIENT, NOT_FINITE
from entrostat.diagnosis.score import has_fallen, has_risen
from entrostat.diagnosis.statistics import began, median, median_above, noise
from entrostat.runs.finding import Finding

REINFORCED = ("reward", "heldout", "reward_std", "entropy", "length", "truncated", "kl", "clip", "equal_groups")
EQUAL = 0.95  # share of equal groups from which on a gradient has nothing to come from


@detector("gradient-fade")
@dataclass(frozen=True, kw_only=True)
class GradientFade(Detector):
    """A gradient norm that has fallen to next to nothing, or has been exactly 0 from the start: nothing is learned.

        second greatest of the last `window` values <= share x median of the first `first` values that are not 0

    and the greatest where some of the last are 0. Not the median: where groups agree the gradient is next to 0 in most
    steps and as large as ever in the others, and then something is still learned. Gradients shrink by a factor of 3 to
    5 as groups come to agree; a twentieth is another order. Critical at a hundredth, where the update is smaller than
    the rounding of bfloat16 weights. No finding where nearly all groups agree while the score has risen, for nothing is
    left to learn there; nor where fewer than three of the first values are not 0, for there is nothing to compare with;
    nor in a log without a trace of reinforcement where the loss has halved: supervised training that has arrived.
    """

    columns: ClassVar = ("grad_norm",)
    share: float = 0.05
    gone: float = 0.01
    first: int = 10
    window: int = 10
    zeros: int = 8

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("grad_norm")
        values = series.values
        if len(values) >= self.zeros and not values.any():
            return self._never(history, series)
        if len(values) < self.first + self.window:
            return None
        last, early = values[-self.window :], values[: self.first]
        now = float(np.sort(last)[-2 if last.all() else -1])  # a spike aside
        alive = early[early > 0]
        if len(alive) < 3:
            return None
        reference = median(alive)
        if now > self.share * reference:
            return None
        onset = began(series, 0.5 * reference, upwards=False)
        if _is_learnt(history) or (_all_agree(history) and has_risen(history, int(series.steps[self.first]))):
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if now <= self.gone * reference else "warning",
            step=history.step,
            onset=onset,
            summary=f"The gradient has faded to {now:.3g}, {now / reference:.1%} of its first steps' {reference:.3g}.",
            evidence={"reference": reference, "now": now},
            columns=self.columns,
            levels={"first steps": reference},
            remedies=FADE,
        )

    def _never(self, history: History, series: Series) -> Finding:
        """Exactly 0 at every step: the weights are not trained, whatever the groups say."""
        return Finding(
            kind=self.kind,
            severity="critical",
            step=history.step,
            onset=int(series.steps[0]),
            summary=f"The gradient has been exactly 0 at each of the {len(series)} steps: nothing is being trained.",
            evidence={"now": 0.0, "steps": float(len(series))},
            columns=self.columns,
            remedies=NO_GRADIENT,
        )


@detector("gradient-explosion")
@dataclass(frozen=True, kw_only=True)
class GradientExplosion(Detector):
    """A gradient norm that has grown by orders of magnitude and stays there.

        ln now - ln usual > ln factor   and   > certain x noise of ln g
        now = median of the last 5 values,   usual = median of all values before them that are not 0

    A single spike, which clipping removes, moves neither median. Critical from `worse` times on, and from `factor`
    on where the score has fallen since. Below `worse` times there is no finding while the score has risen with it.
    """

    columns: ClassVar = ("grad_norm",)
    factor: float = 10.0
    worse: float = 100.0
    certain: float = 6.0
    first: int = 10
    window: int = 5

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("grad_norm")
        values = series.values
        if len(values) < self.first + self.window:
            return None
        now = median(values[-self.window :])
        before = values[: -self.window]
        if median_above(before, now / self.factor):
            return None
        alive = before[before > 0]
        if len(alive) < self.first:
            return None
        usual = median(alive[: max(self.first, len(alive) // 2)])  # what was usual before it grew
        growth, spread = math.log(now / usual), noise(np.log(alive))
        if growth <= max(math.log(self.factor), self.certain * spread):
            return None
        onset = began(series, usual * math.exp(min(0.3 * growth, max(math.log(3), 3 * spread))), upwards=True)
        fallen = has_fallen(history, onset)
        critical = now > self.worse * usual or fallen
        if not critical and has_risen(history, onset):
            return None
        return Finding(
            kind=self.kind,
            severity="critical" if critical else "warning",
            step=history.step,
            onset=onset,
            summary=f"The gradient has grown to {now:.3g}, {now / usual:.3g} times the usual {usual:.3g}"
            + (", and the score has fallen since." if fallen else "."),
            evidence={"usual": usual, "now": now},
            columns=self.columns,
            levels={"usual": usual},
            remedies=GRADIENT_EXPLOSION,
        )

    @override
    def persists(self, history: History, finding: Finding) -> bool:
        """As long as it stays nearer to what it was found at than to the usual, in orders of magnitude."""
        now = median(history.series("grad_norm").values[-self.window :])
        return now > math.sqrt(finding.evidence["usual"] * finding.evidence["now"])


def _is_learnt(history: History) -> bool:
    """Whether a run that logs nothing of reinforcement has brought its loss, which is positive, to less than half."""
    loss = history.series("loss").values
    if len(loss) < 10 or any(name in history for name in REINFORCED):
        return False
    return float(loss.min()) >= 0 and median(loss[-5:]) < 0.5 * median(loss[:5])


def _all_agree(history: History) -> bool:
    """Whether nearly every group earns the same lately, as far as the log tells."""
    for name in ("equal_groups", "reward_std"):
        values: Values = history.series(name).values[-10:]
        if len(values):
            return float((values if name == "equal_groups" else values == 0).mean()) >= EQUAL
    return False


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
        return [step for step in broken if step > last]


def _spoken(names: list[str]) -> str:
    plain = [name.replace("_", " ") for name in names]
    return f"{plain[0]} is" if len(plain) == 1 else f"{', '.join(plain[:-1])} and {plain[-1]} are"
