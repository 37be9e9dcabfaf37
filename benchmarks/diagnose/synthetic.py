"""Training logs made to order, from sound to failed without a gap between.

A log is a sound run to which one failure happens from `onset` on, at a severity from 0 to 1: at 0 it is that sound run,
number by number; at 1 nobody would doubt the failure. What a sound run may look like is drawn at random for each seed:
how long it is, how often it is logged, how noisy it is and for how long noise lasts, which columns it has, whether its
entropy falls to a tenth, doubles or swings, whether completions triple or shrink to a third while the score rises. All
failures of one seed happen to the same sound run.

A model of curves, not of training: what is found here is found on such curves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from real import Truth
from scipy.signal import lfilter
from scipy.stats import binom
from tools import Rows

Array = np.ndarray
Curves = dict[str, Array]

STEPS = (80, 160, 320)
EVERY = (1, 1, 2, 4)  # logged: each step, every second, every fourth; logs have 40 to 320 rows
NOISE = (0.5, 1.0, 2.0)
LASTING = (0.0, 0.0, 0.5, 0.8, 0.95)  # correlation of the noise from row to row; 0 is white
LEAST_ROWS = 40
EVALUATED = 200  # completions of an evaluation


@dataclass(frozen=True)
class Made:
    """A log made to order. end: the last step, None where the log does not say. about: what was drawn for it."""

    rows: Rows
    end: int | None
    truth: Truth
    about: dict[str, float]


def make(kind: str | None, severity: float, seed: int, number: int) -> Made:
    """The `number`-th log of a seed; kind None: the sound run alone. ValueError: no severity."""
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity}; give one from 0, sound, to 1, failed beyond doubt")
    run = Sound(np.random.default_rng([seed, number]))
    onset, also = None, frozenset[str]()
    if kind is not None:
        onset, also = run.fail(kind, severity, np.random.default_rng([seed, number, 1 + [*FAILURES].index(kind)]))
    label = "collapsed" if kind and severity else "healthy"
    right = FAILURES[kind].right if kind else ()
    return Made(run.rows(), run.end, Truth(label, right, also, onset), run.about)


def smooth_step(x: Array, start: float, width: float) -> Array:
    """0 before `start`, 1 after `start` + `width`, a half-cosine between."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((x - start) / width, 0, 1))


def coloured(rng: np.random.Generator, n: int, lasting: float) -> Array:
    """Noise of unit variance whose correlation from row to row is `lasting`."""
    fresh = rng.normal(size=n) * np.sqrt(1 - lasting**2)
    fresh[0] /= np.sqrt(1 - lasting**2)
    return lfilter([1.0], [1.0, -lasting], fresh)


def _length_drawn(rng: np.random.Generator) -> tuple[int, int]:
    while True:
        steps, every = int(rng.choice(STEPS)), int(rng.choice(EVERY))
        if steps // every >= LEAST_ROWS:
            return steps, every


class Sound:
    """A sound run: its curves without noise, which a failure bends, and how they are logged."""

    def __init__(self, rng: np.random.Generator, steps: int | None = None) -> None:
        """steps: how many, each logged; drawn if left out."""
        self.rng = rng
        steps, self.every = (steps, 1) if steps else _length_drawn(rng)
        self.n = steps // self.every
        self.x = np.linspace(0, 1, self.n)
        self.end = steps if rng.random() < 0.5 else None
        self.noise, self.lasting = float(rng.choice(NOISE)), float(rng.choice(LASTING))
        self.evaluated = int(rng.choice([0, 0, 1, 5]))  # a held-out score every so many rows, 0: never
        self.grouped = bool(rng.random() < 0.5)  # whether the share of equal groups is logged
        self.samples = int(rng.choice([64, 256, 1024]))
        self.seed = int(rng.integers(2**32))
        self.curves = self._curves()

    @property
    def about(self) -> dict[str, float]:
        return {"rows": self.n, "every": self.every, "noise": self.noise, "lasting": self.lasting} | {
            "heldout": int(self.evaluated > 0)
        }

    def fail(self, kind: str, severity: float, rng: np.random.Generator) -> tuple[int, frozenset[str]]:
        """Let a failure happen; returns the step where it begins, and what else follows from it."""
        failure = FAILURES[kind]
        start = 0.0 if failure.from_start else rng.uniform(0.25, 0.6)
        failure.happen(self.curves, Ramp(self.x, start, rng), severity)
        if failure.heldout:
            self.evaluated = self.evaluated or 1
        return (int(np.searchsorted(self.x, start)) + 1) * self.every, failure.also

    def _curves(self) -> Curves:
        rng, x = self.rng, self.x
        begin, gain = rng.uniform(0.05, 0.4), rng.uniform(0.15, 0.45)
        rise = 1 / (1 + np.exp(-rng.uniform(4, 12) * (x - rng.uniform(0.15, 0.6))))
        rise = (rise - rise[0]) / (rise[-1] - rise[0])
        start = np.exp(rng.uniform(np.log(0.15), np.log(1.5)))
        shape = rng.choice(["plateau", "plateau", "slow", "rising", "swinging"])
        if shape == "plateau":
            rest = np.exp(rng.uniform(np.log(0.1), np.log(0.8)))
            entropy = start * (rest + (1 - rest) * np.exp(-x / rng.uniform(0.05, 0.4)))
        elif shape == "slow":
            entropy = start * np.exp(-rng.uniform(0.1, 2.0) * x)
        elif shape == "rising":
            entropy = start * (1 + rng.uniform(0.1, 1.5) * smooth_step(x, rng.uniform(0, 0.4), rng.uniform(0.3, 0.6)))
        else:
            entropy = start * (1 - 0.3 * x + rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * rng.uniform(1, 3) * x))
        flat = np.ones_like(x)
        return {
            "score": begin + gain * rise,
            "reward": np.zeros_like(x),  # what the reward is above the score
            "entropy": entropy,
            "length": np.exp(rng.uniform(np.log(50), np.log(2000)) + rng.uniform(-1.0, 1.0) * rise),
            "truncated": rng.uniform(0, 0.12) * flat + rng.uniform(-0.02, 0.08) * x,
            "kl": np.exp(rng.uniform(np.log(0.01), np.log(0.6))) * x ** rng.uniform(0.5, 1.6) + 1e-4,
            "kl_sampler": np.exp(rng.uniform(np.log(5e-4), np.log(2e-2))) * flat,
            "grad_norm": np.exp(rng.uniform(np.log(0.05), np.log(2)) + rng.uniform(-1.2, 0.8) * x),
            "clip_low": rng.uniform(0, 0.04) * (1 + x),
            "clip_high": rng.uniform(0, 0.04) * (1 + x),
            "repetition": rng.uniform(0, 0.06) * (1 + x),
            "equal_groups": rng.uniform(0.1, 0.4) + rng.uniform(0, 0.35) * rise,
            "broken": np.zeros_like(x),  # how likely it is that loss and gradient are NaN
        }

    def rows(self) -> Rows:
        """The curves with their noise, as logged. Noise has a generator of its own, so no failure changes its draws."""
        rng, curves, n = np.random.default_rng(self.seed), self.curves, self.n
        noisy = {
            name: curves[name] * np.exp(self.noise * size * coloured(rng, n, self.lasting))
            for name, size in {
                "entropy": rng.uniform(0.01, 0.05),
                "length": rng.uniform(0.02, 0.06),
                "kl": rng.uniform(0.03, 0.1),
                "kl_sampler": rng.uniform(0.05, 0.2),
                "grad_norm": rng.uniform(0.08, 0.25),
                "clip_low": 0.25,
                "clip_high": 0.25,
                "truncated": 0.2,
                "repetition": 0.2,
            }.items()
        }
        noisy["grad_norm"] = noisy["grad_norm"] * np.where(rng.random(n) < 0.01, rng.uniform(3, 8, n), 1.0)
        difficulty = 0.12 * self.noise * np.sqrt(64 / self.samples) * coloured(rng, n, self.lasting)
        luck, evaluation = rng.random(size=(2, n))
        unlike, losses, fate = rng.normal(0, 0.04, n), rng.normal(0, 0.02, n), rng.random(n)
        score = np.clip(curves["score"], 0.0, 1.0)
        rate = np.clip(score + curves["reward"], 0.0, 1.0)
        rate = np.clip(rate + 4 * difficulty * rate * (1 - rate), 0.0, 1.0)  # of this batch's tasks
        reward = binom.ppf(luck, self.samples, rate) / self.samples
        heldout = binom.ppf(evaluation, EVALUATED, score) / EVALUATED
        equal = np.where(curves["equal_groups"] >= 1 - 1e-9, 1.0, np.clip(curves["equal_groups"] + unlike, 0, 1))
        std = np.sqrt(reward * (1 - reward)) * (1 - equal)
        rows = []
        for i in range(n):
            row = {name: values[i] for name, values in noisy.items()}
            row |= {"reward": reward[i], "reward_std": std[i], "loss": losses[i], "learning_rate": 1e-6}
            for share in ("truncated", "clip_low", "clip_high", "repetition"):
                row[share] = min(max(row[share], 0.0), 1.0)
            if self.grouped:
                row["equal_groups"] = equal[i]
            if self.evaluated and i % self.evaluated == 0:
                row["heldout"] = heldout[i]
            if fate[i] < curves["broken"][i]:
                row["loss"] = row["grad_norm"] = float("nan")
            rows.append(((i + 1) * self.every, {name: float(value) for name, value in row.items()}))
        return rows


# --- failures ---


@dataclass(frozen=True)
class Ramp:
    """How a failure sets in: `course` goes from 0 at `start` to 1 and stays there."""

    x: Array
    start: float
    rng: np.random.Generator = field(repr=False)

    @property
    def after(self) -> Array:
        return self.x > self.start

    def course(self, least: float = 0.05, most: float = 0.3) -> Array:
        return smooth_step(self.x, self.start, self.rng.uniform(least, most))


@dataclass(frozen=True)
class Failure:
    """happen: bends the curves. right: the names by which it may be called. also: what follows from it. at_one: what it
    is at severity 1, for the reader. heldout: it shows in a held-out score alone, so its logs have one."""

    happen: Callable[[Curves, Ramp, float], None]
    right: tuple[str, ...]
    at_one: str
    also: frozenset[str] = frozenset()
    from_start: bool = False
    heldout: bool = False


def _stop_rising(curves: Curves, ramp: Ramp, severity: float) -> None:
    """The share `severity` of what the score would have gained after the start is not gained."""
    after = ramp.after
    level = curves["score"][~after][-1] if (~after).any() else curves["score"][0]
    curves["score"][after] = level + (1 - severity) * (curves["score"][after] - level)


def _fall(curves: Curves, course: Array, share: float) -> None:
    curves["score"] *= 1 - share * course


def _entropy_collapse(curves: Curves, ramp: Ramp, severity: float) -> None:
    width = ramp.rng.uniform(0.3, 1 - ramp.start)
    curves["entropy"] *= 100 ** (-severity * np.clip((ramp.x - ramp.start) / width, 0, 1))
    _stop_rising(curves, ramp, severity)


def _entropy_explosion(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = ramp.course()
    curves["entropy"] *= 12 ** (severity * course)
    _fall(curves, course, 0.6 * severity)


def _rise_then_fall(curves: Curves, ramp: Ramp, severity: float) -> None:
    _fall(curves, ramp.course(), 0.95 * severity)


def _divergence(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = smooth_step(ramp.x, ramp.start, ramp.rng.uniform(0.25, 0.4))
    true = curves["score"].copy()
    _fall(curves, course, 0.7 * severity)
    curves["reward"] = (true + 0.5 * (0.95 - true) * severity * course) - curves["score"]


def _never_learned(curves: Curves, ramp: Ramp, severity: float) -> None:  # noqa: ARG001
    score = curves["score"]
    curves["score"] = score[0] + (1 - severity) * (score - score[0])


def _length(sign: int) -> Callable[[Curves, Ramp, float], None]:
    def happen(curves: Curves, ramp: Ramp, severity: float) -> None:
        course = ramp.course(0.1, 0.35)
        curves["length"] *= 12 ** (sign * severity * course)
        if sign > 0:
            curves["truncated"] = curves["truncated"] + 0.7 * severity**2 * course
        _stop_rising(curves, ramp, severity)
        _fall(curves, course, 0.3 * severity)

    return happen


def _truncation(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = ramp.course(0.1, 0.3)
    curves["truncated"] = curves["truncated"] + 0.85 * severity * course
    curves["length"] *= 1 + severity * course
    _fall(curves, course, 0.7 * severity)


def _gradient_explosion(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = ramp.course()
    curves["grad_norm"] *= 300 ** (severity * course)
    _fall(curves, course, 0.6 * severity)


def _gradient_fade(curves: Curves, ramp: Ramp, severity: float) -> None:
    curves["grad_norm"] *= 300 ** (-severity * ramp.course())
    _stop_rising(curves, ramp, severity)


def _kl_runaway(curves: Curves, ramp: Ramp, severity: float) -> None:
    doubling = ramp.rng.uniform(0.05, 0.15)
    growth = np.exp2(np.clip(ramp.x - ramp.start, 0, None) / doubling) - 1
    curves["kl"] = curves["kl"] + 2.0 * severity * growth / growth[-1]
    _fall(curves, growth / growth[-1], 0.5 * severity)


def _zero_spread(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = ramp.course()
    curves["equal_groups"] += (1 - curves["equal_groups"]) * severity * course
    curves["grad_norm"] *= 1 - 0.99 * severity * course
    _stop_rising(curves, ramp, severity)


def _mismatch(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = ramp.course()
    curves["kl_sampler"] *= 300 ** (severity * course)
    _fall(curves, course, 0.5 * severity)


def _repetition(curves: Curves, ramp: Ramp, severity: float) -> None:
    course = ramp.course(0.1, 0.35)
    curves["repetition"] += 0.8 * severity * course
    _fall(curves, course, 0.5 * severity)


def _clip_saturation(curves: Curves, ramp: Ramp, severity: float) -> None:
    curves["clip_high"] += 0.7 * severity * ramp.course()
    _stop_rising(curves, ramp, severity)


def _plateau(curves: Curves, ramp: Ramp, severity: float) -> None:
    """A score that rises steadily to the end, or ever less after the start; the entropy is not used up."""
    score, x = curves["score"], ramp.x
    slope = (0.9 - score[0]) * 0.8
    curves["score"] = score[0] + slope * (np.minimum(x, ramp.start) + (1 - severity) * np.clip(x - ramp.start, 0, None))
    curves["entropy"] = curves["entropy"][0] * (1 - 0.3 * x)


def _not_finite(curves: Curves, ramp: Ramp, severity: float) -> None:
    curves["broken"] = severity * ramp.after.astype(float)


FELL = frozenset({"rise-then-fall", "divergence"})
DEAD = frozenset({"gradient-fade", "never-learned"})
FAILURES: dict[str, Failure] = {
    "entropy collapse": Failure(
        _entropy_collapse, ("entropy-collapse",), "entropy at a hundredth, the score rises no more", DEAD
    ),
    "entropy explosion": Failure(
        _entropy_explosion, ("entropy-explosion",), "entropy at 12 times, the score lost 60 %", FELL
    ),
    "rise then fall": Failure(_rise_then_fall, ("rise-then-fall",), "the score lost 95 %", FELL),
    "held-out falls": Failure(
        _divergence,
        ("divergence", "rise-then-fall"),
        "the held-out score lost 70 % while the reward rose",
        FELL,
        heldout=True,
    ),
    "never learned": Failure(_never_learned, ("never-learned",), "the score never rises", DEAD, from_start=True),
    "length collapse": Failure(
        _length(-1), ("length-degeneration",), "completions at a twelfth, the score lost 30 %", FELL
    ),
    "length explosion": Failure(
        _length(1),
        ("length-degeneration", "truncation"),
        "completions 12 times as long, 70 % more of them cut, the score lost 30 %",
        FELL,
    ),
    "truncation": Failure(
        _truncation,
        ("truncation",),
        "85 % more completions cut, the score lost 70 %",
        FELL | {"length-degeneration"},
    ),
    "gradient explosion": Failure(
        _gradient_explosion, ("gradient-explosion",), "the gradient at 300 times, the score lost 60 %", FELL
    ),
    "gradient fade": Failure(
        _gradient_fade, ("gradient-fade",), "the gradient at a three hundredth, the score rises no more", DEAD
    ),
    "KL runaway": Failure(_kl_runaway, ("kl-runaway",), "2 nats per token more, the score lost 50 %", FELL),
    "zero spread": Failure(
        _zero_spread, ("degenerate-groups",), "every group earns the same, the score rises no more", DEAD
    ),
    "mismatch": Failure(
        _mismatch, ("sampler-mismatch",), "trainer and sampler 300 times as far apart, the score lost 50 %", FELL
    ),
    "repetition": Failure(
        _repetition, ("repetition",), "80 % more completions repeat themselves, the score lost 50 %", FELL
    ),
    "clipping": Failure(
        _clip_saturation, ("clip-saturation",), "70 % more tokens clipped above, the score rises no more", DEAD
    ),
    "plateau": Failure(_plateau, ("plateau",), "the score stands still, 70 % of the entropy left", DEAD),
    "not finite": Failure(_not_finite, ("not-finite",), "loss and gradient are NaN at every row"),
}
