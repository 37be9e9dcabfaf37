"""Precision, recall and delay of our detectors and of three rivals on the labelled logs.

python benchmarks/diagnose/run.py synthetic --half report      # ours and, where installed, the rivals; results.csv
python benchmarks/diagnose/run.py real                         # logs/ and labels.csv: real runs

Thresholds were set on the half `tune`; figures are reported on the half `report`, whose seeds nobody had looked at. The
rivals are run with their defaults and with the best of the settings in `rivals.py`, chosen on `tune`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rivals
import synthetic
from synthetic import FAILURES, Labelled

from entrostat.diagnosis import Watchdog, diagnose, read_log, recognise_row
from entrostat.runs import sign_test

HERE = Path(__file__).parent
KEPT = Path("runs/diagnose")
Tool = Callable[[Labelled], dict[str, int]]


def ours(log: Labelled) -> dict[str, int]:
    watchdog = Watchdog(log.end)
    for row in log.rows:
        watchdog.observe(row["step"], recognise_row(row).values)
    return {finding.kind: finding.step for finding in reversed(watchdog.findings) if finding.severity != "note"}


def rival(name: str, settings: dict[str, Any]) -> Tool:
    return lambda log: rivals.RIVALS[name][0](log.rows, **settings)


@dataclass(frozen=True)
class Judged:
    """One log under one tool. hit: the failure was reported at or after its onset, delay steps later. wrong: kinds
    reported that are neither the failure nor what follows from it, or before the onset."""

    log: Labelled
    hit: bool
    delay: int | None
    wrong: frozenset[str]


def judge(log: Labelled, alarms: dict[str, int]) -> Judged:
    step = alarms.get(log.kind or "")
    hit = step is not None and log.onset is not None and step >= log.onset
    early = {log.kind} if step is not None and not hit else set()
    wrong = {kind for kind in alarms if kind != log.kind and kind not in log.allowed} | early
    return Judged(log, hit, step - log.onset if hit else None, frozenset(k for k in wrong if k))  # type: ignore[operator]


def logs(half: str, failures: int, healthy: int, collapses: int) -> list[Labelled]:
    """Logs of each failure, at least `collapses` of entropy collapse, and healthy ones; lengths and noise levels take
    turns with the seeds."""
    first = {"tune": 0, "report": 80_000}[half]
    counts = {name: max(failures, collapses if name == "entropy-collapse" else 0) for name in FAILURES}
    failing = [synthetic.make(name, first + seed) for name in FAILURES for seed in range(counts[name])]
    return failing + [synthetic.make(None, first + 5_000 + seed) for seed in range(healthy)]


def kept_alarms(
    half: str, tool: str, run: Tool, made: list[Labelled], compute: bool
) -> dict[str, dict[str, int]] | None:
    """A tool's alarms on every log; what earlier calls computed is kept and not computed again."""
    file = KEPT / half / f"{tool}.json"
    kept: dict[str, dict[str, int]] = json.loads(file.read_text()) if file.exists() else {}
    lacking = [log for log in made if log.name not in kept]
    if lacking and not compute:
        return None
    started = time.perf_counter()
    kept |= {log.name: run(log) for log in lacking}
    if lacking:
        print(f"{tool}: {len(lacking)} logs in {time.perf_counter() - started:.0f} s", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept))
    return kept


def table(tool: str, judged: list[Judged], kinds: set[str]) -> list[dict[str, Any]]:
    """A row a kind: recall over its logs, precision over all logs, delay over hits; and one on healthy logs."""
    rows = []
    for kind in sorted(kinds):
        own = [j for j in judged if j.log.kind == kind]
        hits = [j for j in own if j.hit]
        wrong = sum(kind in j.wrong for j in judged)
        rows.append(
            {
                "tool": tool,
                "kind": kind,
                "logs": len(own),
                "recall": len(hits) / len(own),
                "precision": len(hits) / (len(hits) + wrong) if hits or wrong else float("nan"),
                "delay_steps": statistics.median(j.delay or 0 for j in hits) if hits else float("nan"),
                "delay_share": statistics.median((j.delay or 0) / j.log.end for j in hits) if hits else float("nan"),
            }
        )
    healthy = [j for j in judged if j.log.kind is None]
    alarmed = sum(bool(j.wrong) for j in healthy)
    low, high = wilson(alarmed, len(healthy))
    rows.append({"tool": tool, "kind": "healthy", "logs": len(healthy), "alarmed": alarmed, "low": low, "high": high})
    return rows


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share."""
    p, d = hits / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    centre = (p + z * z / (2 * n)) / d
    return max(centre - half, 0.0), min(centre + half, 1.0)


def synthetic_half(half: str, failures: int, healthy: int, collapses: int, only: list[str]) -> None:
    rivals.quiet()
    made = logs(half, failures, healthy, collapses)
    tools: list[tuple[str, Tool, set[str]]] = [("entrostat", ours, {kind for kind, _ in FAILURES.values()})]
    chosen = json.loads((HERE / "rivals.json").read_text()) if (HERE / "rivals.json").exists() else {}
    for name, (_, tried) in rivals.RIVALS.items():
        module = {"rldoctor": "rl_doctor"}.get(name, name)
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed and left out")
            continue
        kinds = rivals.KINDS_OF[name]
        if half == "tune":
            tools += [(f"{name} {index}", rival(name, settings), kinds) for index, settings in enumerate(tried)]
        else:
            tools.append((f"{name}, defaults", rival(name, {}), kinds))
            if chosen.get(name):
                tools.append((f"{name}, tuned", rival(name, tried[chosen[name]]), kinds))
    rows: list[dict[str, Any]] = []
    judged: dict[str, list[Judged]] = {}
    for tool, run, kinds in tools:
        alarms = kept_alarms(half, tool, run, made, compute=not only or tool in only)
        if alarms is None:
            continue
        judged[tool] = [judge(log, alarms[log.name]) for log in made]
        rows += table(tool, judged[tool], kinds)
        print(tool)
        for row in rows[-len(kinds) - 1 :]:
            print("  ", {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    if half == "tune":
        choose(rows)
    else:
        collapse(judged)
        fields = ["tool", "kind", "logs", "recall", "precision", "delay_steps", "delay_share", "alarmed", "low", "high"]
        with (HERE / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def choose(rows: list[dict[str, Any]]) -> None:
    """For each rival the settings with the highest mean F1 over its kinds, less its share of alarmed healthy logs."""
    best: dict[str, tuple[float, int]] = {}
    for tool in {row["tool"] for row in rows if row["tool"] != "entrostat"}:
        name, _, index = tool.partition(" ")
        own = [row for row in rows if row["tool"] == tool]
        scores = [
            0.0 if not row["recall"] else 2 * row["recall"] * row["precision"] / (row["recall"] + row["precision"])
            for row in own
            if row["kind"] != "healthy"
        ]
        healthy = next(row for row in own if row["kind"] == "healthy")
        score = statistics.fmean(scores) - healthy["alarmed"] / healthy["logs"]
        best[name] = max(best.get(name, (-9.0, 0)), (score, int(index)))
    print("chosen", best)
    (HERE / "rivals.json").write_text(json.dumps({name: index for name, (_, index) in best.items()}) + "\n")


def collapse(judged: dict[str, list[Judged]]) -> None:
    """Entropy collapse log by log: the median delay of each tool, and how often ours is earlier; collapse.csv."""
    found = {tool: [j for j in each if j.log.kind == "entropy-collapse"] for tool, each in judged.items()}
    mine = found.get("entrostat", [])
    for tool, each in found.items():
        if not each or not each[0].log.kind or not any(j.hit for j in each):
            continue
        hits = [j.delay / j.log.end for j in each if j.delay is not None]
        low, high = bootstrap_median(hits)
        line = f"collapse, {tool}: found {len(hits)} of {len(each)}, median delay {statistics.median(hits):.3f}"
        line += f" [{low:.3f}, {high:.3f}] of the run"
        if tool != "entrostat" and mine:
            pairs = [(a.delay, b.delay) for a, b in zip(mine, each, strict=True)]
            both = [(a, b) for a, b in pairs if a is not None and b is not None]
            earlier, later = sum(a < b for a, b in both), sum(a > b for a, b in both)
            alone = sum(a is not None and b is None for a, b in pairs)
            missed = sum(a is None and b is not None for a, b in pairs)
            line += (
                f"; ours earlier {earlier}, same {len(both) - earlier - later}, later {later}, found alone {alone}, "
                f"missed {missed}; sign test p = {sign_test([b for _, b in both], [a for a, _ in both]):.2g}"
            )
        print(line)
    with (HERE / "collapse.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["log", "rows", "noise", "onset", "end", *(f"delay, {tool}" for tool in found)])
        for place, j in enumerate(mine):
            about = [j.log.name, j.log.about["rows"], j.log.about["noise"], j.log.onset, j.log.end]
            writer.writerow([*about, *(each[place].delay for each in found.values())])


def bootstrap_median(values: list[float], resamples: int = 10_000) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def real() -> None:
    """The logs of real runs: what was found, beside what is true of them."""
    with (HERE / "labels.csv").open() as file:
        labels = list(csv.DictReader(file))
    hits = expected = alarmed = healthy = 0
    for row in labels:
        reported = diagnose(read_log(HERE / "logs" / row["log"]), int(row["end"])).watchdog.findings
        found = {finding.kind: finding.step for finding in reversed(reported) if finding.severity != "note"}
        required, allowed = set(row["kinds"].split()), set(row["allowed"].split())
        hits, expected = hits + len(required & set(found)), expected + len(required)
        wrong = set(found) - required - allowed
        healthy += not required
        alarmed += not required and bool(wrong)
        missed = ", ".join(sorted(required - set(found))) or "-"
        print(f"{row['log']:<28} found {found or '-'}; missed {missed}; wrong {', '.join(sorted(wrong)) or '-'}")
    print(f"real logs {len(labels)}: {hits} of {expected} failures found, {alarmed} of {healthy} healthy runs alarmed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["synthetic", "real"])
    parser.add_argument("--half", choices=["tune", "report"], default="report")
    parser.add_argument("--failures", type=int, default=20, help="Logs a failure.")
    parser.add_argument("--healthy", type=int, default=300, help="Healthy logs.")
    parser.add_argument("--collapses", type=int, default=60, help="Logs of entropy collapse, at least.")
    parser.add_argument("--only", nargs="*", default=[], help="Run these tools now; of others show what is kept.")
    chosen = parser.parse_args()
    if chosen.what == "synthetic":
        synthetic_half(chosen.half, chosen.failures, chosen.healthy, chosen.collapses, chosen.only)
    else:
        real()


if __name__ == "__main__":
    main()
