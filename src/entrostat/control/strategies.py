"""Strategies: which clip rule is in force at a step, to raise, lower or hold the policy's entropy.

k is the number of optimizer steps done, T the total number; after T the last rule stays. To raise the entropy, the
upper threshold (rewarded tokens) widens to `upper`; to lower it, the lower threshold (punished tokens) widens to
`lower`; otherwise both are the constant `eps_std`. Strategies have no effect with exactly one gradient step per rollout
batch, where every ratio is 1. Source: arXiv 2602.09782; every mixture of thresholds is linear in p.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from entrostat.control.part import Measured, Part, Phase, State, strategy
from entrostat.objective import ClipBand, ClipRule, DualClip, LinearThreshold

UPPER = LinearThreshold(slope=-0.25, intercept=0.50)
LOWER = LinearThreshold(slope=-0.13, intercept=0.30)
STANDARD = ClipRule.constant()


class Strategy(Part, ABC):
    """A part that owns the clip band."""

    @abstractmethod
    def clip(self) -> ClipBand:
        """The band of the next step."""


class Schedule(Strategy):
    """A strategy that depends only on the progress of the run: a small class with `at`, and `phase_at` for reports."""

    @abstractmethod
    def at(self, done: float) -> ClipBand:
        """The band when the share `done` of the run is completed, in [0, 1]."""

    def phase_at(self, done: float) -> Phase:  # noqa: ARG002
        """What that band is meant to do to the entropy."""
        return "hold"

    def rule(self, step: int, total_steps: int) -> ClipBand:
        """The band after `step` of `total_steps` steps. Raises ValueError for step < 0 or total_steps < 1."""
        return self.at(progress(step, total_steps))

    @override
    def clip(self) -> ClipBand:
        return self.at(self.progress)

    @property
    @override
    def phase(self) -> Phase:
        return self.phase_at(self.progress)

    @override
    def bands(self) -> Sequence[ClipBand]:
        return [self.at(done / 8) for done in range(9)]


def progress(step: int, total_steps: int) -> float:
    """The completed share of the steps, in [0, 1]."""
    if total_steps < 1:
        raise ValueError(f"total_steps is {total_steps}; give the number of optimizer steps of the run, at least 1")
    if step < 0:
        raise ValueError(f"step is {step}; give the number of optimizer steps done, at least 0")
    return min(step / total_steps, 1.0)


@dataclass
class Constant(Schedule):
    """One rule at every step: the constant .2 of GRPO by default, clip-higher with ClipRule.constant(upper=0.28)."""

    band: ClipBand = STANDARD

    @override
    def at(self, done: float) -> ClipBand:
        return self.band


@dataclass
class DualClipped(Strategy):
    """Another strategy, plus no gradient above the ratio `cap` for A < 0 (see `DualClip`).

    Source: arXiv 1912.09729. Raises ValueError for a cap of 1 or less, and for a strategy that already has a dual clip.
    """

    inner: Part
    cap: float = 3.0

    def __post_init__(self) -> None:
        if not self.inner.owns_band:
            raise ValueError(f"DualClipped.inner is a {type(self.inner).__name__}, which owns no band; give a strategy")
        if any(isinstance(band, DualClip) for band in self.inner.bands()):
            raise ValueError(f"dual_clip is {self.cap}, but the strategy already has a dual clip; give only one")
        self.clip()

    @property
    @override
    def needs_entropy(self) -> bool:  # type: ignore[override]
        """Whether the inner strategy reads the entropy."""
        return self.inner.needs_entropy

    @override
    def observe(self, step: Measured) -> None:
        self.inner.progress = step.progress
        self.inner.observe(step)

    @override
    def clip(self) -> ClipBand:
        self.inner.progress = self.progress
        band = self.inner.clip()
        return DualClip(STANDARD if band is None else band, self.cap)

    @property
    @override
    def phase(self) -> Phase:
        self.inner.progress = self.progress
        return self.inner.phase

    @override
    def bands(self) -> Sequence[ClipBand]:
        return [DualClip(band, self.cap) for band in self.inner.bands()]

    @override
    def state_dict(self) -> State:
        return self.inner.state_dict()

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


@dataclass
class _TwoPhases(Schedule):
    """The common base of ID and DID: a first phase of the share `split` of the steps, then one with fading `lower`.

    With k the step and K = split T:
        first phase    k <= K    lambda = 1 - k/K
        second phase   k >  K    w = 1 - (k - K)/(T - K),  E+ set by the subclass,  E- = w lower + (1 - w) eps_std
    least, most: limits of both thresholds at every p (see `ClipRule`). scale: factor on all thresholds; for GSPO, whose
    .0004 takes the place of the .2, it is .002.
    Raises ValueError for a split outside (0, 1) and for thresholds that form no valid clip rule.
    """

    upper: LinearThreshold = UPPER
    lower: LinearThreshold = LOWER
    eps_std: float = 0.2
    split: float = 0.5
    least: float = 0.0
    most: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.split < 1:
            raise ValueError(f"split is {self.split}; the first phase needs a share of the steps in (0, 1)")
        self.banded(self.upper, self.lower)
        self.banded(self.standard, self.standard)

    @property
    def standard(self) -> LinearThreshold:
        """eps_std as a threshold."""
        return LinearThreshold.constant(self.eps_std)

    def banded(self, upper: LinearThreshold, lower: LinearThreshold) -> ClipRule:
        """The rule of two thresholds, scaled and within the limits."""
        return scaled(upper, lower, self.scale, self.least, self.most)

    @override
    def bands(self) -> Sequence[ClipRule]:
        return self.banded(self.upper, self.standard), self.banded(self.standard, self.lower)

    def fade(self, done: float) -> tuple[bool, float]:
        """Whether it is the first phase, and the weight that falls from 1 to 0 in the current phase: lambda or w."""
        if done <= self.split:
            return True, 1 - done / self.split
        return False, 1 - (done - self.split) / (1 - self.split)


@strategy("id")
@dataclass
class IncreaseThenDecrease(_TwoPhases):
    """ID, increase then decrease: meant to raise the entropy in the first phase and lower it in the second.

    k <= K: E+ = lambda upper + (1 - lambda) eps_std, E- = eps_std;  k > K: E+ = eps_std, E- = w lower + (1 - w) eps_std
    with K = split T, lambda = 1 - k/K, w = 1 - (k - K)/(T - K). Source: arXiv 2602.09782, where split .5
    is the best of .3 to .6. Ours: at the end +.009 [-.001, .019] nats against GRPO, n = 5 (studies/entropy-strategies).
    """

    @override
    def at(self, done: float) -> ClipRule:
        first, weight = self.fade(done)
        if first:
            return self.banded(self.upper.mix(self.standard, weight), self.standard)
        return self.banded(self.standard, self.lower.mix(self.standard, weight))

    @override
    def phase_at(self, done: float) -> Phase:
        """First "increase", then "decrease"."""
        return "increase" if self.fade(done)[0] else "decrease"


@strategy("did")
@dataclass
class DecreaseIncreaseDecrease(_TwoPhases):
    """DID, decrease, increase, decrease: the standard band, then the upper threshold widens, then the lower one.

    k <= K: E+ = lambda eps_std + (1 - lambda) upper, E- = eps_std;  k > K: E+ = upper, E- = w lower + (1 - w) eps_std
    with K = split T, lambda = 1 - k/K, w = 1 - (k - K)/(T - K). Source: arXiv 2602.09782.
    """

    @override
    def at(self, done: float) -> ClipRule:
        first, weight = self.fade(done)
        if first:
            return self.banded(self.standard.mix(self.upper, weight), self.standard)
        return self.banded(self.upper, self.lower.mix(self.standard, weight))

    @override
    def phase_at(self, done: float) -> Phase:
        """First "decrease"; "increase" once lambda < 1/2; "decrease" again in the second phase."""
        first, weight = self.fade(done)
        return "increase" if first and weight < 0.5 else "decrease"


@strategy("od")
@dataclass
class OscillatoryDecay(Strategy):
    """OD, oscillatory decay: boosts the entropy at a fixed lower bound and suppresses it above a falling upper bound.

        H_min = h_min_ratio H_init,  tau_low = H_min,  tau_high(k) = H_min + (H_init - H_min)(1 - k/T)
    Hysteresis: boost from the step with entropy <= tau_low until the step with entropy > tau_high; suppress otherwise,
    and at the start. Boost: (E+, E-) = (upper, eps_std). Suppress: (eps_std, lower).
    h_init: H_init in nats; None takes the first measured entropy. least, most, scale: as in ID.
    Source: arXiv 2602.09782; Tencent/IterSynth sets h_init .5 and the limits .05 and .6, which its slopes never reach.
    Raises ValueError for h_init <= 0, h_min_ratio outside (0, 1), invalid thresholds, and an entropy that
    is not finite.
    """

    needs_entropy = True

    upper: LinearThreshold = UPPER
    lower: LinearThreshold = LOWER
    eps_std: float = 0.2
    h_init: float | None = None
    h_min_ratio: float = 0.2
    least: float = 0.0
    most: float | None = None
    scale: float = 1.0
    _boost: bool = field(default=False, init=False, repr=False)
    _h_init: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.h_init is not None and not (math.isfinite(self.h_init) and self.h_init > 0):
            raise ValueError(f"h_init is {self.h_init}; give a positive entropy in nats, or None to measure it")
        if not 0 < self.h_min_ratio < 1:
            raise ValueError(f"h_min_ratio is {self.h_min_ratio}; give a number in (0, 1)")
        self._h_init = self.h_init
        standard = LinearThreshold.constant(self.eps_std)
        self._boosting, self._suppressing = (
            scaled(upper, lower, self.scale, self.least, self.most)
            for upper, lower in ((self.upper, standard), (standard, self.lower))
        )

    @override
    def observe(self, step: Measured) -> None:
        """Update the hysteresis with the entropy of a step."""
        if not math.isfinite(step.entropy):
            raise ValueError(f"entropy is {step.entropy} at step {step.step}; give a finite number of nats")
        if self._h_init is None:
            self._h_init = step.entropy
        low = self.h_min_ratio * self._h_init
        if step.entropy <= low:
            self._boost = True
        elif step.entropy > low + (self._h_init - low) * (1 - step.progress):
            self._boost = False

    @override
    def clip(self) -> ClipRule:
        return self._boosting if self._boost else self._suppressing

    @override
    def bands(self) -> Sequence[ClipRule]:
        return self._boosting, self._suppressing

    @property
    @override
    def phase(self) -> Phase:
        """ "increase" while boosting, else "decrease"."""
        return "increase" if self._boost else "decrease"

    @override
    def state_dict(self) -> State:
        """Whether it boosts, and the H_init in use."""
        return {"boost": self._boost, "h_init": self._h_init}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._boost, self._h_init = bool(state["boost"]), state["h_init"]


def scaled(
    upper: LinearThreshold, lower: LinearThreshold, scale: float, least: float = 0.0, most: float | None = None
) -> ClipRule:
    """The rule of two thresholds, each times `scale` and then within [least, most]; ValueError for scale <= 0."""
    if not scale > 0:
        raise ValueError(f"scale is {scale}; give a factor above 0 on the thresholds")
    up, down = (LinearThreshold(scale * each.slope, scale * each.intercept) for each in (upper, lower))
    return ClipRule(up, down, least, most)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the run: until the share `until` of the steps the rule moves from `start` to `end`, linearly in both
    thresholds; `end` None keeps `start`. phase: its name in reports.
    """

    until: float
    start: ClipRule = STANDARD
    end: ClipRule | None = None
    phase: Phase = "hold"


@strategy("piecewise")
@dataclass
class Piecewise(Schedule):
    """Stages in sequence; each includes its last step, like the first phase of ID.

    Raises ValueError if `until` does not increase within (0, 1] or the last stage does not end at 1.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(set(ends)) or not ends[0] > 0 or ends[-1] != 1:
            raise ValueError(f"Piecewise.stages: until is {ends}; it must increase from above 0 to 1 at the last stage")

    @override
    def at(self, done: float) -> ClipRule:
        index = self._index(done)
        stage, begin = self.stages[index], self.stages[index - 1].until if index else 0.0
        end = stage.start if stage.end is None else stage.end
        weight = 1 - (done - begin) / (stage.until - begin)
        return stage.start.mix(end, weight)

    @override
    def bands(self) -> Sequence[ClipRule]:
        return [rule for stage in self.stages for rule in (stage.start, stage.end) if rule is not None]

    @override
    def phase_at(self, done: float) -> Phase:
        return self.stages[self._index(done)].phase

    def _index(self, done: float) -> int:
        return next(index for index, stage in enumerate(self.stages) if done <= stage.until)
