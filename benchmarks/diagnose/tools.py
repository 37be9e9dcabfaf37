"""The tools under test: ours, and rules of one line per failure as the control condition.

A tool takes the rows of a run, (step, {quantity: value}), and the run's last step where that is known, and returns its
reports. Every tool gets the same rows, read and named by our reader, so that only the judging differs. The three other
packages are in `rivals.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from entrostat.diagnosis import DETECTORS, Detector, Watchdog

Rows = Sequence[tuple[int, Mapping[str, float]]]


class Report(NamedTuple):
    """kinds: the failures that the report may mean, in our names. severity: note, warning or critical. step: where it
    was first made. over: the step at which it was withdrawn, None if it stands at the last row."""

    kinds: tuple[str, ...]
    severity: str
    step: int
    over: int | None = None


Tool = Callable[[Rows, int | None], list[Report]]
RANK = ("note", "warning", "critical")


# --- ours ---

# detector -> its thresholds, and how each depends on the strictness m:
#   times x -> m x        over x -> x / m        power x -> x^m, for ratios        rest x -> 1 - (1 - x)^m
STRICTNESS: dict[str, dict[str, str]] = {
    "clip-saturation": {"limit": "times"},
    "entropy-collapse": {"floor_share": "power", "spent": "rest", "none": "over"},
    "entropy-explosion": {"factor": "power", "over_start": "power", "certain": "times"},
    "not-finite": {},
    "gradient-fade": {"share": "power"},
    "gradient-explosion": {"factor": "power", "certain": "times"},
    "degenerate-groups": {"limit": "rest", "chance": "power"},
    "kl-runaway": {"ratio": "power", "least": "times", "certain": "times"},
    "never-learned": {"share": "over", "least": "times", "same": "times"},
    "plateau": {"share": "over", "least": "times"},
    "truncation": {"limit": "times", "rise": "times"},
    "length-degeneration": {"growth": "power"},
    "slow-steps": {"factor": "power"},
    "rise-then-fall": {"share": "times", "chance": "power"},
    "divergence": {"share": "times", "gain": "times"},
    "repetition": {"limit": "times", "rise": "times"},
    "template-collapse": {"still": "over", "spent": "over", "kept": "over", "certain": "times"},
    "sampler-mismatch": {"limit": "times", "growth": "power", "certain": "times"},
    "staleness": {"limit": "times"},
}
WAYS: dict[str, Callable[[float, float], float]] = {
    "times": lambda x, m: x * m,
    "over": lambda x, m: x / m,
    "power": lambda x, m: x**m,
    "rest": lambda x, m: 1 - (1 - x) ** m,
}


def scaled(detector: Detector, strictness: float) -> Detector:
    """The detector with all its thresholds moved together; at a strictness of 1 it is as it was."""
    fields = {}
    for name, way in STRICTNESS[detector.kind].items():
        old = getattr(detector, name)
        new = WAYS[way](old, strictness)
        fields[name] = round(new) if isinstance(old, int) else new
    return replace(detector, **fields) if fields else detector  # type: ignore[type-var]


def entrostat(strictness: float = 1.0, kinds: Iterable[str] | None = None) -> Tool:
    """Our watchdog, row by row, as a live run; kinds: ask these detectors alone."""
    wanted = None if kinds is None else set(kinds)
    detectors = [scaled(each, strictness) for each in DETECTORS if wanted is None or each.kind in wanted]

    def run(rows: Rows, end: int | None) -> list[Report]:
        watchdog = Watchdog(end, detectors)
        for step, values in rows:
            watchdog.observe(step, values)
        return [
            Report((found.kind,), found.severity, found.first_step, found.over)
            for found in (*watchdog.past, *watchdog.standing())
        ]

    return run


# --- rules of one line ---


FEW = 5


@dataclass(frozen=True)
class Past:
    """The values of one quantity so far, judged by the first five, the last five, and the best mean of five."""

    values: list[float]

    @property
    def first(self) -> float:
        return statistics.median(self.values[:FEW])

    @property
    def now(self) -> float:
        return statistics.median(self.values[-FEW:])

    @property
    def growth(self) -> float:
        """Now over first; infinite where the quantity was 0 at first, 1 where it is still."""
        return self.now / self.first if self.first > 0 else (math.inf if self.now > 0 else 1.0)

    @property
    def fallen(self) -> float:
        """The share of the best mean of five values that the last five have lost; of the range for signed values."""
        means = np.convolve(self.values, np.ones(FEW) / FEW, "valid")
        least = 0.0 if min(self.values) >= 0 else means.min()
        return float((means.max() - means[-1]) / max(means.max() - least, 1e-9))


Rule = Callable[[Past, float], bool]
# failure -> the quantities, of which the first that the log has is read, and the rule at a strictness m
RULES: dict[str, tuple[tuple[str, ...], Rule]] = {
    "entropy-collapse": (("entropy",), lambda past, m: past.growth < 0.1**m),
    "entropy-explosion": (("entropy",), lambda past, m: past.growth > 3**m),
    "rise-then-fall": (("heldout", "reward"), lambda past, m: past.fallen > min(0.2 * m, 0.99)),
    "length-degeneration": (("length",), lambda past, m: not 3**-m < past.growth < 3**m),
    "gradient-explosion": (("grad_norm",), lambda past, m: past.growth > 10**m),
    "gradient-fade": (("grad_norm",), lambda past, m: past.growth < 0.05**m),
    "kl-runaway": (("kl",), lambda past, m: past.now > 0.5 * m),
    "sampler-mismatch": (("kl_sampler", "mismatch"), lambda past, m: abs(past.now) > 0.1 * m),
    "degenerate-groups": (("equal_groups",), lambda past, m: past.now > 1 - 0.1**m),
    "truncation": (("truncated",), lambda past, m: past.now > min(0.5 * m, 0.99)),
    "clip-saturation": (("clip",), lambda past, m: past.now > 0.2 * m),
    "repetition": (("repetition",), lambda past, m: past.now > 0.3 * m),
    "never-learned": (("reward",), lambda past, m: len(past.values) > 80 and past.now < past.first + 0.02 / m),
}
BROKEN = ("loss", "grad_norm", "entropy", "reward", "kl")


def rules(strictness: float = 1.0, kinds: Iterable[str] = (*RULES, "not-finite")) -> Tool:
    """One threshold per failure, on the median of the last five values; a rule is withdrawn when it no longer holds."""
    wanted = set(kinds)

    def run(rows: Rows, end: int | None) -> list[Report]:  # noqa: ARG001
        past: dict[str, list[float]] = {}

        def shown(values: Mapping[str, float]) -> dict[str, str]:
            for name, value in with_clip(values).items():
                if math.isfinite(value):
                    past.setdefault(name, []).append(value)
            found = {}
            for kind in wanted & RULES.keys():
                names, rule = RULES[kind]
                series = next((past[name] for name in names if name in past), [])
                if len(series) >= 10 and rule(Past(series), strictness):
                    found[kind] = "critical"
            if "not-finite" in wanted and any(not math.isfinite(values.get(name, 0.0)) for name in BROKEN):
                found["not-finite"] = "critical"
            return found

        return followed((step, shown(values)) for step, values in rows)

    return run


def with_clip(values: Mapping[str, float]) -> dict[str, float]:
    """The row, with the clipped shares of both sides summed where the log has the two alone."""
    sides = [values[name] for name in ("clip_low", "clip_high") if name in values]
    return {"clip": sum(sides), **values} if sides else dict(values)


def followed(looks: Iterable[tuple[int, Mapping[str, str]]], means: Mapping[str, tuple[str, ...]] = {}) -> list[Report]:
    """Reports of a tool that says at each look what holds, name -> severity; means: its name -> the failures."""
    standing: dict[str, Report] = {}
    past: list[Report] = []
    for step, now in looks:
        for name in [*standing]:
            if name not in now:
                past.append(standing.pop(name)._replace(over=step))
        for name, severity in now.items():
            known = standing.get(name, Report(means.get(name, (name,)), severity, step))
            standing[name] = known._replace(severity=severity)
    return [*past, *standing.values()]
