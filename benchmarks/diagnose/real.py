"""Logs of real runs with labels: what each tool says of them, beside what is true.

Two collections: `logs/` with `labels.csv` (runs of the embedded engine and of TRL), and a folder of public logs with a
`labels.csv` of its own. The public logs stay where they are; their labels, sources, licences and hashes are kept in
`public.csv`, what the tools say of both in `real.csv`.

label: healthy, collapsed or unclear; unclear logs are shown and not counted. kind: every name by which the failure may
rightly be called, the main one first. also: findings that are true of the log without being its failure. onset: the
step where it began.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import RANK, Report, Tool

from entrostat.diagnosis import LogError, read_log
from entrostat.diagnosis.reading import Log

HERE = Path(__file__).parent
LABELS = ("file", "source", "licence", "label", "second_label", "kind", "also", "onset", "evidence", "notes")

# a label's kind -> the findings of ours that name it, where these are others
NAMES = {
    "rise-then-fall": {"rise-then-fall", "divergence"},
    "length-collapse": {"length-degeneration"},
    "length-explosion": {"length-degeneration", "truncation"},
    "kl-blow-up": {"kl-runaway"},
    "never-learned": {"never-learned", "degenerate-groups", "gradient-fade"},
    "nan": {"not-finite"},
}
NEVER_FALSE = {"plateau"}  # a remark: many good runs end so


@dataclass(frozen=True)
class Truth:
    label: str
    kinds: tuple[str, ...]
    also: frozenset[str]
    onset: int | None

    @property
    def main(self) -> set[str]:
        return findings(self.kinds[:1])

    @property
    def right(self) -> set[str]:
        return findings(self.kinds)

    @property
    def true(self) -> set[str]:
        return self.right | findings(self.also) | NEVER_FALSE


def findings(kinds: Any) -> set[str]:
    return set().union(*(NAMES.get(kind, {kind}) for kind in kinds))


def truth(row: dict[str, str]) -> Truth:
    kinds, also = ([name for name in row[key].split("|") if name] for key in ("kind", "also"))
    return Truth(row["label"], tuple(kinds), frozenset(also), int(row["onset"]) if row["onset"] else None)


def judge(true: Truth, reports: list[Report], steps: list[int]) -> dict[str, Any]:
    """One log under one tool, by what stands at its last row; what was withdrawn is told apart.

    found: `main` for the main kind, `other` for another right name, `missed`; empty for a healthy log.
    critical: whether it is found as a critical one.
    delay: from the onset to the first report of that kind, in steps and in logged rows; negative where it came first.
    false: the worst severity of what stands and is not true.
    withdrawn: live alarms that later rows refuted.
    """
    alarms = [report for report in reports if RANK.index(report.severity) > 0]
    standing = [report for report in alarms if report.over is None]
    hits = [report for report in standing if true.right & set(report.kinds)]
    main = [report for report in hits if true.main & set(report.kinds)]
    first = min((report.step for report in main or hits), default=None)
    late = first is not None and true.onset is not None
    false = [report for report in standing if not true.true & set(report.kinds)]
    return {
        "found": "" if true.label != "collapsed" else "main" if main else "other" if hits else "missed",
        "critical": int(any(report.severity == "critical" for report in hits)) if true.label == "collapsed" else None,
        "delay_steps": first - true.onset if late else None,
        "delay_rows": _between(steps, true.onset, first) if late else None,
        "false": max((report.severity for report in false), key=RANK.index, default=""),
        "standing": _told(standing),
        "withdrawn": _told([report for report in alarms if report.over is not None]),
    }


def _between(steps: list[int], onset: int, found: int) -> int:
    """Logged rows from the one at the onset to the one of the report; negative where the report came first."""
    low, high = sorted((onset, found))
    count = sum(low < step <= high for step in steps)
    return count if found >= onset else -count


def _told(reports: list[Report], most: int = 6) -> str:
    """kind@step of each, `!` for critical ones; of more than `most` the rest are counted."""
    ordered = sorted(reports, key=lambda report: report.step)
    named = [f"{r.kinds[0]}{'!' * (r.severity == 'critical')}@{r.step}" for r in ordered[:most]]
    return " ".join([*named, *([f"+{len(ordered) - most}"] if len(ordered) > most else [])])


@dataclass(frozen=True)
class Labelled:
    """A log with its label. log: None where it cannot be read. end: the last step of the run, where it is known."""

    collection: str
    row: dict[str, str]
    log: Log | None
    digest: str

    @property
    def name(self) -> str:
        return self.row["file"]

    @property
    def end(self) -> int | None:
        return int(self.row["end"]) if self.row.get("end") else self.log.end if self.log else None


def labelled(collection: str, folder: Path, labels: Path) -> Iterator[Labelled]:
    for row in csv.DictReader(labels.open(newline="", encoding="utf-8")):
        path = folder / row["file"]
        try:
            log = read_log(path)
        except LogError:
            log = None
        yield Labelled(collection, row, log, hashlib.sha256(path.read_bytes()).hexdigest())


def own() -> list[Labelled]:
    return [*labelled("own", HERE / "logs", HERE / "labels.csv")]


def public(folder: Path) -> list[Labelled]:
    return [*labelled("public", folder, folder / "labels.csv")]


def label_rows(logs: list[Labelled]) -> list[dict[str, Any]]:
    """Labels, sources and hashes of public logs, for `public.csv`."""
    return [
        {name: each.row[name] for name in LABELS}
        | {"rows": len(each.log.rows) if each.log else None, "sha256": each.digest}
        for each in logs
    ]


def result_rows(logs: list[Labelled], tool: str, setting: str, run: Tool) -> list[dict[str, Any]]:
    """What one tool says of every log; a log of which nothing is understood counts as unread."""
    rows = []
    for each in logs:
        true = truth(each.row)
        used = each.log is not None and bool(each.log.used)
        reports = run(each.log.rows, each.end) if each.log and used else []
        steps = [step for step, _ in each.log.rows] if each.log else []
        rows.append(
            {"collection": each.collection, "log": each.name, "source": each.row["source"], "label": true.label}
            | {"sha256": each.digest, "kind": true.kinds[0] if true.kinds else "", "onset": true.onset}
            | {"tool": tool, "setting": setting, "read": int(used)}
            | judge(true, reports, steps)
        )
    return rows
