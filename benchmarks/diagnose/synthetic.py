"""Training logs made to order: healthy, and failing in one known way from one known step.

A model of curves, not of training. What a run may look like while nothing is wrong is drawn at random for each log:
length, noise, logging interval, host, group size, how hard the tasks are, whether entropy falls, rises or swings and
completions grow, which columns are lacking. A failing log is a healthy one to which one failure happens at `onset`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
Curves = dict[str, Array]

ROWS = (60, 100, 200, 400, 800)
NOISE = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Labelled:
    """rows: as the host would have logged them. kind: the failure, None for a healthy log. onset: the step where it
    begins. allowed: failures that follow from it and may be reported too."""

    name: str
    rows: list[dict[str, Any]]
    end: int
    kind: str | None = None
    onset: int | None = None
    allowed: frozenset[str] = frozenset()
    about: dict[str, Any] = field(default_factory=dict)


def smooth_step(x: Array, start: float, width: float) -> Array:
    """0 before `start`, 1 after `start` + `width`, a half-cosine between."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((x - start) / max(width, 1e-9), 0, 1))


def coloured(rng: np.random.Generator, n: int, rho: float) -> Array:
    """Noise of unit variance with lag-1 correlation rho."""
    white = rng.normal(size=n)
    out = np.empty(n)
    out[0] = white[0]
    for i in range(1, n):
        out[i] = rho * out[i - 1] + np.sqrt(1 - rho**2) * white[i]
    return out


class Maker:
    """One log: its latent curves, which a failure bends, and the noise with which they are logged."""

    def __init__(self, seed: int, rows: int, noise: float) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.n, self.noise = rows, noise
        self.x = np.arange(rows) / (rows - 1)
        self.every = int(rng.choice([1, 1, 5, 10]))
        self.host = str(rng.choice(["trl", "verl", "plain"]))
        self.group = int(rng.choice([4, 8, 16]))
        self.prompts = int(rng.choice([16, 64, 256]))
        self.eval_rows = int(rng.choice([0, 2, 5, max(rows // 20, 1)]))
        self.eval_tasks = int(rng.choice([64, 200, 500]))
        self.spread = float(rng.uniform(1.0, 4.0))
        self.correlation = float(rng.uniform(0.0, 0.6))
        self.curves = self._healthy()
        self.onset: int | None = None

    def _healthy(self) -> Curves:
        rng, x = self.rng, self.x
        begin, gain = rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.35)
        middle, rate = rng.uniform(0.15, 0.6), rng.uniform(4, 12)
        rise = 1 / (1 + np.exp(-rate * (x - middle)))
        rise = (rise - rise[0]) / (rise[-1] - rise[0])
        ends = np.array([begin, begin + gain])
        while _alike(ends, self.spread, self.group).max() > 0.75:  # healthy: a quarter of the groups teach something
            self.group, self.spread = max(self.group, 8), self.spread + 0.5
        start = np.exp(rng.uniform(np.log(0.15), np.log(1.5)))
        shape = rng.choice(["plateau", "plateau", "slow", "rising", "swinging"])
        if shape == "plateau":
            rest = rng.uniform(0.2, 0.8)
            entropy = start * (rest + (1 - rest) * np.exp(-x / rng.uniform(0.05, 0.4)))
        elif shape == "slow":
            entropy = start * np.exp(-rng.uniform(0.1, 1.2) * x)
        elif shape == "rising":
            entropy = start * (1 + rng.uniform(0.1, 0.9) * smooth_step(x, rng.uniform(0, 0.4), rng.uniform(0.3, 0.6)))
        else:
            entropy = start * (1 - 0.3 * x + rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * rng.uniform(1, 3) * x))
        return {
            "pass": begin + gain * rise,
            "gap": np.full(self.n, rng.uniform(-0.02, 0.08)) + rng.uniform(0, 0.06) * x,
            "entropy": entropy,
            "length": np.exp(rng.uniform(np.log(50), np.log(2000))) * (1 + rng.uniform(-0.3, 1.0) * rise),
            "truncated": np.full(self.n, rng.uniform(0, 0.08)) + rng.uniform(-0.02, 0.05) * x,
            "kl": rng.uniform(0.005, 0.25) * x ** rng.uniform(0.5, 1.3),
            "grad_norm": np.exp(rng.uniform(np.log(0.05), np.log(2))) * (1 - rng.uniform(0, 0.6) * x),
            "clip_low": np.full(self.n, rng.uniform(0, 0.02)) * (1 + x),
            "clip_high": np.full(self.n, rng.uniform(0, 0.02)) * (1 + x),
            "equal": np.zeros(self.n),
        }

    def begins(self, low: float = 0.25, high: float = 0.65) -> float:
        """Draw where the failure begins, as a share of the run."""
        row = int(self.rng.uniform(low, high) * self.n)
        self.onset = (row + 1) * self.every
        return float(self.x[row])

    def log(self) -> list[dict[str, Any]]:
        """The curves with their noise, under the host's names."""
        rng, curves, n, scale = self.rng, self.curves, self.n, self.noise
        rate = np.clip(curves["pass"], 0.001, 0.999)
        difficulty = 0.03 * scale * rng.normal(size=n) * np.sqrt(16 / self.prompts)
        trials = self.prompts * self.group
        reward = rng.binomial(trials, np.clip(rate + difficulty * 4 * rate * (1 - rate), 0, 1)) / trials
        equal = np.clip(_alike(rate, self.spread, self.group) + curves["equal"], 0, 1)
        equal = rng.binomial(self.prompts, equal) / self.prompts
        jitter = {
            "entropy": rng.uniform(0.01, 0.05),
            "length": rng.uniform(0.02, 0.06),
            "kl": rng.uniform(0.03, 0.1),
            "grad_norm": rng.uniform(0.08, 0.2),
            "clip_low": 0.25,
            "clip_high": 0.25,
            "truncated": 0.2,
        }
        noisy = {
            name: curves[name] * np.exp(scale * size * coloured(rng, n, self.correlation))
            for name, size in jitter.items()
        }
        spikes = rng.random(n) < 0.01
        noisy["grad_norm"][spikes] *= rng.uniform(3, 8, spikes.sum())
        rows: list[dict[str, Any]] = []
        for i in range(n):
            row = {
                "entropy": noisy["entropy"][i],
                "reward": reward[i],
                "reward_std": float(np.sqrt(reward[i] * (1 - reward[i]))),
                "frac_reward_zero_std": equal[i],
                "completions/mean_length": noisy["length"][i],
                "completions/clipped_ratio": min(max(noisy["truncated"][i], 0.0), 1.0),
                "kl": noisy["kl"][i],
                "grad_norm": noisy["grad_norm"][i],
                "clip_ratio/low_mean": min(noisy["clip_low"][i], 1.0),
                "clip_ratio/high_mean": min(noisy["clip_high"][i], 1.0),
                "clip_ratio/region_mean": min(noisy["clip_low"][i] + noisy["clip_high"][i], 1.0),
                "loss": float(rng.normal(0, 0.02)),
            }
            if self.eval_rows and i % self.eval_rows == 0:
                score = np.clip(rate[i] - curves["gap"][i], 0.0, 1.0)
                row["eval_reward"] = rng.binomial(self.eval_tasks, score) / self.eval_tasks
            row = {name: float(value) for name, value in row.items()}
            for name in curves:
                if name.startswith("nan:") and curves[name][i]:
                    row[name[4:]] = float("nan")
            rows.append({"step": (i + 1) * self.every, **_renamed(row, self.host)})
        return rows


def _alike(rate: Array, spread: float, group: int) -> Array:
    """Share of the groups of G completions that are all right or all wrong: E[q^G + (1-q)^G], q ~ Beta of mean rate."""
    share = np.zeros_like(rate)
    for mean in (rate, 1 - rate):
        part = np.ones_like(rate)
        for i in range(group):
            part *= (mean * spread + i) / (spread + i)
        share += part
    return share


_VERL = {
    "entropy": "actor/entropy",
    "reward": "critic/score/mean",
    "completions/mean_length": "response_length/mean",
    "completions/clipped_ratio": "response_length/clip_ratio",
    "kl": "actor/kl_loss",
    "grad_norm": "actor/grad_norm",
    "clip_ratio/region_mean": "actor/pg_clipfrac",
    "loss": "actor/pg_loss",
    "eval_reward": "val-core/task/acc/mean@4",
}
_VERL_LACKS = ("reward_std", "clip_ratio/low_mean", "clip_ratio/high_mean")


def _renamed(row: dict[str, float], host: str) -> dict[str, float]:
    if host != "verl":
        return row
    return {_VERL.get(name, name): value for name, value in row.items() if name not in _VERL_LACKS}


def entropy_collapse(maker: Maker) -> frozenset[str]:
    start, curves = maker.begins(0.2, 0.55), maker.curves
    width = maker.rng.uniform(0.15, 0.95 - start)
    level = curves["entropy"][np.searchsorted(maker.x, start)]
    rate = np.log(maker.rng.uniform(30, 500)) / width
    after = maker.x > start
    curves["entropy"][after] = level * np.exp(-rate * (maker.x[after] - start)) + 1e-4
    if maker.rng.random() < 0.7:
        curves["pass"][after] = curves["pass"][~after][-1]
    return frozenset({"gradient-fade"})


def entropy_explosion(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.08, 0.3))
    maker.curves["entropy"] *= np.exp(np.log(maker.rng.uniform(5, 14)) * ramp)
    if maker.rng.random() < 0.5:
        maker.curves["pass"] *= 1 - maker.rng.uniform(0.3, 0.9) * ramp
    return frozenset({"rise-then-fall"})


def rise_then_fall(maker: Maker) -> frozenset[str]:
    start = maker.begins(0.3, 0.7)
    maker.curves["pass"] *= 1 - maker.rng.uniform(0.5, 0.99) * smooth_step(
        maker.x, start, maker.rng.uniform(0.02, 0.25)
    )
    return frozenset({"degenerate-groups"})


def divergence(maker: Maker) -> frozenset[str]:
    maker.eval_rows = maker.eval_rows or 5
    if maker.n // maker.eval_rows < 20:
        maker.eval_rows = max(maker.n // 20, 1)
    start = maker.begins(0.3, 0.55)
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.2, 0.4))
    true = maker.curves["pass"].copy()
    maker.curves["pass"] = true + (0.95 - true) * maker.rng.uniform(0.3, 0.8) * ramp
    score = (true - maker.curves["gap"]) * (1 - maker.rng.uniform(0.25, 0.7) * ramp)
    maker.curves["gap"] = maker.curves["pass"] - score
    return frozenset({"rise-then-fall", "degenerate-groups"})


def all_right(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.05, 0.25))
    maker.curves["pass"] += (maker.rng.uniform(0.985, 0.998) - maker.curves["pass"]) * ramp
    maker.curves["equal"] = ramp * maker.rng.uniform(0.02, 0.06)
    maker.curves["grad_norm"] *= 1 - 0.9 * ramp
    return frozenset({"gradient-fade", "entropy-collapse"})


def all_wrong(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.05, 0.25))
    maker.curves["pass"] += (maker.rng.uniform(0.001, 0.006) - maker.curves["pass"]) * ramp
    maker.curves["equal"] = ramp * maker.rng.uniform(0.02, 0.06)
    maker.curves["grad_norm"] *= 1 - 0.9 * ramp
    return frozenset({"gradient-fade", "rise-then-fall"})


def _clip(side: str) -> Callable[[Maker], frozenset[str]]:
    def bend(maker: Maker) -> frozenset[str]:
        start = maker.begins()
        ramp = smooth_step(maker.x, start, maker.rng.uniform(0.05, 0.3))
        maker.curves[side] = maker.curves[side] + maker.rng.uniform(0.3, 0.7) * ramp
        return frozenset()

    return bend


def truncation(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.1, 0.3))
    share = maker.rng.uniform(0.4, 0.95)
    maker.curves["truncated"] = maker.curves["truncated"] * (1 - ramp) + share * ramp
    maker.curves["length"] *= 1 + maker.rng.uniform(0.5, 2.0) * ramp
    maker.curves["pass"] *= 1 - 0.8 * share * ramp
    return frozenset({"rise-then-fall", "length-degeneration", "degenerate-groups"})


def length_degeneration(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.1, 0.35))
    factor = maker.rng.uniform(4, 9)
    before = maker.curves["length"][0]
    now = before * (factor if maker.rng.random() < 0.6 else 1 / factor)
    maker.curves["length"] = np.exp(np.log(maker.curves["length"]) * (1 - ramp) + np.log(now) * ramp)
    after = maker.x > start
    maker.curves["pass"][after] = maker.curves["pass"][~after][-1] * (1 - maker.rng.uniform(0, 0.15) * ramp[after])
    return frozenset({"rise-then-fall"})


def kl_runaway(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    doubling = maker.rng.uniform(0.03, 0.08)
    growth = np.exp2(np.clip(maker.x - start, 0, None) / doubling) - 1
    maker.curves["kl"] = np.minimum(maker.curves["kl"] + 0.02 * growth, maker.rng.uniform(1.5, 20))
    return frozenset()


def gradient_fade(maker: Maker) -> frozenset[str]:
    start = maker.begins()
    ramp = smooth_step(maker.x, start, maker.rng.uniform(0.05, 0.25))
    maker.curves["grad_norm"] *= np.exp(np.log(maker.rng.uniform(0.001, 0.02)) * ramp)
    return frozenset()


def not_finite(maker: Maker) -> frozenset[str]:
    start = maker.begins(0.1, 0.9)
    maker.curves["nan:" + ("actor/pg_loss" if maker.host == "verl" else "loss")] = (maker.x >= start).astype(float)
    if maker.rng.random() < 0.5:
        maker.curves["nan:" + ("actor/grad_norm" if maker.host == "verl" else "grad_norm")] = maker.x >= start
    return frozenset()


FAILURES: dict[str, tuple[str, Callable[[Maker], frozenset[str]]]] = {
    "entropy-collapse": ("entropy-collapse", entropy_collapse),
    "entropy-explosion": ("entropy-explosion", entropy_explosion),
    "rise-then-fall": ("rise-then-fall", rise_then_fall),
    "divergence": ("divergence", divergence),
    "all-right": ("degenerate-groups", all_right),
    "all-wrong": ("degenerate-groups", all_wrong),
    "clip-low": ("clip-saturation", _clip("clip_low")),
    "clip-high": ("clip-saturation", _clip("clip_high")),
    "truncation": ("truncation", truncation),
    "length-degeneration": ("length-degeneration", length_degeneration),
    "kl-runaway": ("kl-runaway", kl_runaway),
    "gradient-fade": ("gradient-fade", gradient_fade),
    "not-finite": ("not-finite", not_finite),
}


def make(failure: str | None, seed: int) -> Labelled:
    """The log of one seed, healthy for None; lengths and noise levels take turns with the seed."""
    rows, noise = ROWS[seed % len(ROWS)], NOISE[seed // len(ROWS) % len(NOISE)]
    maker = Maker(seed * 1009 + (0 if failure is None else 1 + list(FAILURES).index(failure)), rows, noise)
    kind, allowed = None, frozenset[str]()
    if failure is not None:
        kind, bend = FAILURES[failure]
        allowed = bend(maker)
    about = {"rows": rows, "noise": noise, "host": maker.host, "every": maker.every}
    name = f"{failure or 'healthy'}-{seed}"
    return Labelled(name, maker.log(), rows * maker.every, kind, maker.onset, allowed, about)
