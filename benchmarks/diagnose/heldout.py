"""What a held-out score is worth: the falls of studies/early-warning, found with it and without.

python benchmarks/diagnose/heldout.py      # heldout.csv, a row per run and condition

32 runs of 36 steps, of which 20 fall (`runs.csv` of the study has the step). A fall counts as found when rise-then-fall
or divergence is reported at any step; a sound run as alarmed when anything is, notes aside.
"""

from __future__ import annotations

import csv
import gzip
import statistics
from collections import defaultdict
from pathlib import Path

from run import wilson

from entrostat.diagnosis import Watchdog

HERE = Path(__file__).parent
STUDY = HERE.parents[1] / "studies" / "early-warning"
SIGNALS = {  # quantity -> the study's signal, and its sign there
    "heldout": ("pass_at_1", 1),
    "reward": ("train reward, low", -1),
    "entropy": ("entropy, high", 1),
    "length": ("length", 1),
    "truncated": ("truncated", 1),
    "grad_norm": ("gradient norm", 1),
}
FALLS = ("rise-then-fall", "divergence")


def reports(lines: list[dict[str, str]], heldout: bool) -> dict[str, int]:
    """Kind -> the step of its first report."""
    watchdog = Watchdog(int(lines[-1]["step"]))
    for line in lines:
        values = {
            name: sign * float(line[signal])
            for name, (signal, sign) in SIGNALS.items()
            if line[signal] and (heldout or name != "heldout")
        }
        if values:
            watchdog.observe(int(line["step"]), values)
    return {finding.kind: finding.step for finding in reversed(watchdog.findings) if finding.severity != "note"}


def main() -> None:
    runs: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with gzip.open(STUDY / "steps.csv.gz", "rt") as file:
        for line in csv.DictReader(file):
            runs[line["condition"], line["seed"]].append(line)
    with (STUDY / "runs.csv").open() as file:
        falls = {(row["condition"], row["seed"]): row["fall_step"] for row in csv.DictReader(file)}
    rows = []
    for heldout in (True, False):
        for run, lines in runs.items():
            found = reports(lines, heldout)
            step = min((found[kind] for kind in FALLS if kind in found), default=None)
            fall = int(falls[run]) if falls[run] else None
            alarmed = step is not None if fall else bool(found)
            delay = step - fall if fall and step is not None else ""
            rows.append([*run, "yes" if heldout else "no", fall or "", "yes" if alarmed else "no", delay])
    with (HERE / "heldout.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["condition", "seed", "heldout", "fall", "reported", "delay"])
        writer.writerows(rows)
    for heldout in ("yes", "no"):
        own = [row for row in rows if row[2] == heldout]
        fell, sound = [row for row in own if row[3] != ""], [row for row in own if row[3] == ""]
        hits, alarms = [row for row in fell if row[4] == "yes"], [row for row in sound if row[4] == "yes"]
        print(
            f"held-out score {heldout}: {len(hits)} of {len(fell)} falls found, median delay "
            f"{statistics.median(row[5] for row in hits):g} steps, {len(alarms)} of {len(sound)} sound runs alarmed "
            f"(Wilson {wilson(len(hits), len(fell))}, {wilson(len(alarms), len(sound))})"
        )


if __name__ == "__main__":
    main()
