"""How early a collapse of entropy can be forecast, and what that costs in false alarms: the tuning half alone.

python benchmarks/diagnose/tradeoff.py    # five minutes; writes tradeoff.csv

Three ways to be earlier were tried: less evidence (a shorter window, fewer looks in a row, a lower confidence), more
trust (a course is believed for longer than twice as long as it has been seen), and a line through the values since the
fall began in place of a window.
"""

from __future__ import annotations

import csv
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import synthetic
from run import bootstrap_median, wilson
from typing_extensions import override

from entrostat.diagnosis import Finding, History, Watchdog, recognise_row
from entrostat.diagnosis.detectors import EntropyCollapse
from entrostat.diagnosis.detectors import entropy as parts
from entrostat.diagnosis.statistics import fit_line, rolling_median

COLLAPSES, HEALTHY, FIRST_HEALTHY = 300, 2500, 6_000
OUT = Path(__file__).parent / "tradeoff.csv"

Log = tuple[int | None, int, list[tuple[int, float]]]  # onset, end, entropy by step


@dataclass(frozen=True, kw_only=True)
class SinceTheFall(EntropyCollapse):
    """The line goes through the values since the entropy was last near its highest before the fall."""

    near: float = 0.9

    @override
    def _forecast(self, history: History, series, start, floor, now, end):  # type: ignore[no-untyped-def]
        if len(series) < self.window or now > (1 - self.spent) * start:
            return None
        smooth = rolling_median(series.values, 3)
        fall = parts._last_above(smooth, 0.8 * start) + 2
        high = max(start, float(smooth[max(0, fall - 52) : max(fall - 1, 1)].max()))
        size = len(series) - parts._last_above(smooth, self.near * high) - 2
        size = min(max(size, self.window), max(self.window, round(0.3 * len(series))))
        steps, values = series.steps[-size:].astype(float), np.log(np.maximum(series.values[-size:], parts.TINY))
        whole, late = fit_line(steps, values), fit_line(steps[size // 2 :], values[size // 2 :])
        _, latest = parts._arrival_bounds(whole, steps, math.log(floor), self.confidence)
        onset = int(series.steps[fall])
        if max(latest, parts._arrival(late, math.log(floor))) > min(
            end, history.step + self.reach * (history.step - onset)
        ):
            return None
        return Finding(self.kind, "warning", history.step, onset, "", {}, self.columns)


VARIANTS: dict[str, EntropyCollapse] = {
    "before: window 20 or .3, 3 looks": EntropyCollapse(window=20, recent=0.3, confirm=3),
    "window 12 or .15": EntropyCollapse(window=12, confirm=3),
    "window 10 or .15": EntropyCollapse(window=10, confirm=3),
    "window 10 or .15, 2 looks": EntropyCollapse(window=10),
    "now: window 8 or .15, 2 looks": EntropyCollapse(),
    "window 8 or .1, 2 looks": EntropyCollapse(recent=0.1),
    "window 8 or .15, 1 look": EntropyCollapse(confirm=1),
    "window 8 or .15, 2 looks, confidence .8": EntropyCollapse(confidence=0.8),
    "window 8 or .15, 2 looks, a third gone": EntropyCollapse(spent=0.35),
    "window 8 or .15, 2 looks, believed 3 times as long": EntropyCollapse(reach=3.0),
    "since the fall began, 2 looks": SinceTheFall(),
    "since the fall began, 2 looks, believed 3 times as long": SinceTheFall(reach=3.0),
}


def entropies(failure: str | None, seed: int) -> Log:
    log = synthetic.make(failure, seed)
    rows = [(row["step"], recognise_row(row).values.get("entropy")) for row in log.rows]
    return log.onset, log.end, [(step, value) for step, value in rows if value is not None]


def first_alarm(log: Log, detector: EntropyCollapse) -> int | None:
    watchdog = Watchdog(log[1], [detector])
    return next((step for step, value in log[2] if watchdog.observe(step, {"entropy": value})), None)


def main() -> None:
    failing = [entropies("entropy-collapse", seed) for seed in range(COLLAPSES)]
    healthy = [entropies(None, FIRST_HEALTHY + seed) for seed in range(HEALTHY)]
    rows = []
    for name, detector in VARIANTS.items():
        alarms = [(first_alarm(log, detector), log) for log in failing]
        delays = [(step - log[0]) / log[1] for step, log in alarms if step is not None and log[0] and step >= log[0]]
        false = sum(first_alarm(log, detector) is not None for log in healthy)
        low, high = bootstrap_median(delays)
        least, most = wilson(false, HEALTHY)
        rows.append(
            {
                "rule": name,
                "found": f"{len(delays)} of {COLLAPSES}",
                "median_delay": round(statistics.median(delays), 4),
                "delay_low": round(low, 4),
                "delay_high": round(high, 4),
                "healthy_alarmed": f"{false} of {HEALTHY}",
                "alarmed_low": round(least, 5),
                "alarmed_high": round(most, 5),
            }
        )
        print(rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
