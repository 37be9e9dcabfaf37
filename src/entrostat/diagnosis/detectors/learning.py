"""A reward that never rose, and one that has stopped rising with exploration left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from entrostat.diagnosis.detectors.detector import Detector, detector
from entrostat.diagnosis.history import History, Series, Values
from entrostat.diagnosis.remedies import NEVER_LEARNED, PLATEAU
from entrostat.diagnosis.score import scale_of
from entrostat.diagnosis.statistics import deviation, mean, median, noise
from entrostat.runs.finding import Finding


@detector("never-learned")
@dataclass(frozen=True, kw_only=True)
class NeverLearned(Detector):
    """A low reward that has not risen since the run began.

        gain = mean of the last third - mean of the first tenth,   error = its standard error, by each part's own spread
        gain + 2 error < share x range        the range of all rewards seen, with the least and greatest logged
        the same of the middle third;   last third's mean below the middle of that range (0 ... 1 for rewards in there),
        or a share of it above where the range is what was seen

    after `least` steps, and half of the run where its end is known; a held-out score must not have risen either. A
    reward that is exactly the same at every step is one after `same` steps, and critical.
    """

    columns: ClassVar = ("reward",)
    share: float = 0.05
    least: int = 80
    same: int = 15

    @override
    def find(self, history: History, end: int) -> Finding | None:
        series = history.series("reward")
        values = series.values
        if len(values) < self.same:
            return None
        if not np.ptp(values):
            return self._constant(history, series)
        if len(values) < self.least or 2 * history.step < end:
            return None
        third = len(values) // 3
        first = values[: max(8, len(values) // 10)]
        low, high = _range(history, values)
        enough = self.share * (high - low)
        parts = (values[third:-third], values[-third:])
        middle = (low + high) / 2 + (0.0 if (low, high) == (0.0, 1.0) else enough)
        if mean(parts[1]) >= middle or any(mean(part) - mean(first) >= enough for part in parts):
            return None
        gain = error = 0.0
        for later in parts:
            gain, error = _gain(first, later)
            if gain + 2 * error >= enough:
                return None
        heldout = history.series("heldout").values
        if len(heldout) >= 6:
            part = len(heldout) // 3
            better, unsure = _gain(heldout[:part], heldout[-part:])
            if better > 2 * unsure and better > 0.05 * scale_of(history.series("heldout")):
                return None
        now = float(values[-third:].mean())
        return Finding(
            kind=self.kind,
            severity="warning",
            step=history.step,
            onset=int(series.steps[0]),
            summary=(
                f"The reward has not risen in {len(values)} steps: {float(first.mean()):.3g} at first, "
                f"{now:.3g} now, a change of {gain:+.2g} ± {2 * error:.2g}."
            ),
            evidence={"gain": gain, "gain_error": error, "now": now, "least": low, "greatest": high},
            columns=self.columns,
            remedies=NEVER_LEARNED,
        )

    def _constant(self, history: History, series: Series) -> Finding | None:
        value = float(series.values[0])
        if value >= 1.0:  # everything is right already: the groups say so
            return None
        return Finding(
            kind=self.kind,
            severity="critical",
            step=history.step,
            onset=int(series.steps[0]),
            summary=f"The reward has been exactly {value:.3g} at each of the {len(series)} steps: it never differs.",
            evidence={"now": value, "steps": float(len(series))},
            columns=self.columns,
            remedies=NEVER_LEARNED,
        )


@detector("plateau")
@dataclass(frozen=True, kw_only=True)
class Plateau(Detector):
    """A score that has risen and is flat, with entropy left: a note, because many good runs end like this.

    Over the last half of the values, at least `least`: |gain of its second half over its first| + 2 errors <
    share x scale, while the entropy is above `fuel` of its start. Score: the held-out one if it was evaluated often
    enough, else the reward. Source: entropy as what a run spends, arXiv 2505.22617.
    """

    columns: ClassVar = ("heldout", "reward")
    share: float = 0.05
    least: int = 24
    fuel: float = 0.5
    top: float = 0.9

    @override
    def find(self, history: History, end: int) -> Finding | None:
        entropy = history.series("entropy").values
        if len(entropy) < self.least:
            return None
        start, left = median(entropy[:5]), median(entropy[-5:])
        if left <= self.fuel * start or left <= 0:
            return None
        name = "heldout" if len(history.series("heldout")) >= 2 * self.least else "reward"
        steps, values = history.series(name)
        half = len(values) // 2
        if half < self.least:
            return None
        late = values[-half:]
        scale = scale_of(history.series(name))
        if abs(mean(late[half // 2 :]) - mean(late[: half // 2])) >= self.share * scale:
            return None
        gain, error = _gain(late[: half // 2], late[half // 2 :])
        risen, unsure = _gain(values[: max(half // 4, 3)], late)
        flat = abs(gain) + 2 * error < self.share * scale
        if not flat or risen < max(3 * unsure, 0.1 * scale) or (scale <= 1 and late.mean() > self.top):
            return None
        return Finding(
            kind=self.kind,
            severity="note",
            step=history.step,
            onset=int(steps[-half]),
            summary=(
                f"The {'held-out score' if name == 'heldout' else 'reward'} has stood at {late.mean():.3g} since step "
                f"{steps[-half]}, while {left / start:.0%} of the first entropy is left to explore with."
            ),
            evidence={"now": float(late.mean()), "gain": gain, "gain_error": error, "entropy_left": left / start},
            columns=(name, "entropy"),
            remedies=PLATEAU,
        )


def _gain(first: Values, last: Values) -> tuple[float, float]:
    """The difference of two means and its standard error, by the larger of each part's spread and its noise."""
    parts = [max(deviation(part), noise(part)) ** 2 / len(part) for part in (first, last)]
    return mean(last) - mean(first), math.sqrt(sum(parts))


def _range(history: History, values: Values) -> tuple[float, float]:
    """Least and greatest reward: 0 and 1 where all lie between, else of most steps, as logged for a batch, or 2.5
    standard deviations of a batch's rewards on either side of what the mean usually is."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    low, high = (float(bound) for bound in np.quantile(values, [0.05, 0.95]))  # rare rewards stretch no scale
    for name, least in (("reward_min", True), ("reward_max", False)):
        logged = history.series(name).values
        if len(logged):
            bound = median(logged)
            low, high = (min(low, bound), high) if least else (low, max(high, bound))
    spread = history.series("reward_std").values
    if len(spread):
        usual, wide = median(values), 2.5 * median(spread)
        low, high = min(low, usual - wide), max(high, usual + wide)
    return low, high
