"""What a held-out score is worth: the falls of studies/early-warning, found with it and without.

32 runs of 36 steps, of which 20 fall (`runs.csv` of the study has the step, by its own rule: pass@1 more than .2 below
an earlier one). They were evaluated at every step; here the detectors see each evaluation, every second, every fourth,
or none. A fall counts as found when rise-then-fall or divergence is reported at any step, a sound run as alarmed when
anything is, remarks aside. No threshold was set by these runs.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path
from typing import Any

from real import findings
from tools import Report, Rows, entrostat, rules

STUDY = Path(__file__).parents[2] / "studies" / "early-warning"
SIGNALS = {  # quantity -> the study's signal, and its sign there
    "heldout": ("pass_at_1", 1),
    "reward": ("train reward, low", -1),
    "entropy": ("entropy, high", 1),
    "length": ("length", 1),
    "truncated": ("truncated", 1),
    "grad_norm": ("gradient norm", 1),
}
EVALUATED = {"at every step": 1, "every 2 steps": 2, "every 4 steps": 4, "never": 0}


def rows(every: int, lines: list[dict[str, str]]) -> Rows:
    """The rows of a run, evaluated at every so many steps; 0: never."""
    found = []
    for line in lines:
        step = int(line["step"])
        seen = every > 0 and step % every == 0
        values = {
            name: sign * float(line[signal])
            for name, (signal, sign) in SIGNALS.items()
            if line[signal] and (seen or name != "heldout")
        }
        found.append((step, values))
    return [row for row in found if row[1]]


def early_rows() -> list[dict[str, Any]]:
    """One row per run, evaluation and tool."""
    runs: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with gzip.open(STUDY / "steps.csv.gz", "rt") as file:
        for line in csv.DictReader(file):
            runs[line["condition"], line["seed"]].append(line)
    with (STUDY / "runs.csv").open() as file:
        falls = {(row["condition"], row["seed"]): row["fall_step"] for row in csv.DictReader(file)}
    found = []
    for name, tool in (("entrostat", entrostat()), ("one-line rules", rules())):
        for evaluated, every in EVALUATED.items():
            for (condition, seed), lines in runs.items():
                fall = int(falls[condition, seed]) if falls[condition, seed] else None
                reports = tool(rows(every, lines), int(lines[-1]["step"]))
                found.append(
                    {"tool": name, "evaluated": evaluated, "condition": condition, "seed": int(seed), "fall": fall}
                    | _heard([report for report in reports if report.severity != "note"], fall)
                )
    return found


def _heard(alarms: list[Report], fall: int | None) -> dict[str, Any]:
    right = findings(["rise-then-fall"])
    counted = [report for report in alarms if right & set(report.kinds)] if fall else alarms
    first = min((report.step for report in counted), default=None)
    return {
        "reported": int(first is not None),
        "stands": int(any(report.over is None for report in counted)),
        "delay": first - fall if first is not None and fall else None,
    }
