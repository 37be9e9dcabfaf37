"""Rewards whose noise lasts: sound runs and falls of any depth, from the reward alone, for several strictnesses.

python benchmarks/diagnose/lasting.py --first 4000 --count 20      # lasting.csv; a minute

Runs lose none, 40, 70 or 95 % of their reward, under noise that is white, correlated (lag 1: .5, .8, .95), heavy-tailed
(Student's t of 3), periodic, or in stages as of a curriculum. It has a standard deviation of .02 to .1; runs have 60 to
400 rows. `certain` is the detector's threshold in standard errors. Thresholds were set on seeds from 1000 and 2000 on.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from synthetic import Array, coloured, smooth_step

from entrostat.diagnosis import DETECTORS, Watchdog

KINDS = ("ar0", "ar.5", "ar.8", "ar.95", "periodic", "heavy", "curriculum")
DEPTHS = (0.4, 0.7, 0.95)
STRICTNESS = (3.0, 4.5, 6.0)
OUT = Path(__file__).parent / "lasting.csv"


def noise(kind: str, rng: np.random.Generator, n: int) -> Array:
    """Noise of about unit variance."""
    if kind == "periodic":
        period = rng.uniform(15, 60)
        return 1.2 * np.sin(2 * np.pi * (np.arange(n) / period + rng.random())) + 0.6 * rng.normal(size=n)
    if kind == "heavy":
        return rng.standard_t(3, size=n) / math.sqrt(3)
    if kind == "curriculum":
        stages = int(rng.integers(4, 9))
        begins = np.sort(rng.choice(np.arange(5, n), stages, replace=False))
        level = rng.normal(size=stages + 1)
        return 0.8 * level[np.searchsorted(begins, np.arange(n), side="right")] + 0.6 * rng.normal(size=n)
    return coloured(rng, n, float(kind[2:]))


def rewards(kind: str, seed: int, depth: float = 0.0) -> Array:
    """The rewards of one run, which loses `depth` of them for good from somewhere between .35 and .7 of it on."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    n = int(rng.choice([60, 100, 200, 400]))
    x = np.arange(n) / (n - 1)
    begin, gain = rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.4)
    rise = 1 / (1 + np.exp(-rng.uniform(4, 12) * (x - rng.uniform(0.1, 0.5))))
    course = begin + gain * (rise - rise[0]) / (rise[-1] - rise[0])
    if depth:
        course = course * (1 - depth * smooth_step(x, int(n * rng.uniform(0.35, 0.7)) / n, rng.uniform(0.03, 0.25)))
    return np.clip(course + rng.uniform(0.02, 0.1) * noise(kind, rng, n), 0, 1)


def alarmed(values: Array, certain: float) -> tuple[bool, bool]:
    """Whether a fall was reported at any time, and whether it stands at the end."""
    own = [replace(each, certain=certain) for each in DETECTORS if each.kind == "rise-then-fall"]  # type: ignore[call-arg]
    watchdog = Watchdog(len(values), own)
    for step, value in enumerate(values, start=1):
        watchdog.observe(step, {"reward": float(value)})
    return bool(watchdog.findings), bool(watchdog.standing())


def row(kind: str, depth: float, certain: float, each: list[tuple[bool, bool]]) -> list[object]:
    cells: list[object] = [kind, depth, certain, len(each)]
    for hits in (sum(a for a, _ in each), sum(b for _, b in each)):
        interval = binomtest(hits, len(each)).proportion_ci(method="wilson")
        cells += [hits, round(float(interval.low), 4), round(float(interval.high), 4)]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=4000)
    parser.add_argument("--count", type=int, default=20)
    chosen = parser.parse_args()
    rows = []
    for certain in STRICTNESS:
        for depth in (0.0, *DEPTHS):
            count, first = (chosen.count // 2, chosen.first + 50_000) if depth else (chosen.count, chosen.first)
            every: list[tuple[bool, bool]] = []
            for kind in KINDS:
                own = [alarmed(rewards(kind, first + seed, depth), certain) for seed in range(count)]
                rows.append(row(kind, depth, certain, own))
                every += own
            rows.append(row("all", depth, certain, every))
            print(rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ["noise", "depth", "certain", "runs", "ever", "ever_low", "ever_high", "end", "end_low", "end_high"]
        writer.writerow(names)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
