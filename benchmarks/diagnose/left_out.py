"""Every threshold set anew without one source of logs, and judged by the logs of that source alone.

A source is a repository of public logs, or one of our own trainers. For each rule the strictness is taken that
separates best, among `GRID` and by the logs of all other sources, the logs of which its failure is true from those of
which it is not: the share of the former found less that of the latter alarmed; of several equally good ones the middle
one, so that the one in use has no advantage. A rule whose failure no other source has gets the middle of the grid.

Thresholds alone are set anew: what a rule compares, and how, was thought out with all of these logs in view.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from real import Labelled, truth
from tools import RANK, entrostat

from entrostat.diagnosis import DETECTORS

GRID = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)
KINDS = tuple(each.kind for each in DETECTORS if each.kind != "plateau")

Verdicts = dict[tuple[str, str, float], bool]  # (log, rule, strictness) -> whether it stands at the end of the log


def left_out_rows(logs: list[Labelled]) -> list[dict[str, Any]]:
    """One row per labelled log and rule: the strictness set without the log's source, and what the rule then says.

    true: whether the failure is true of the log. names: whether it is the right name of a failing log.
    """
    counted = [each for each in logs if each.log and truth(each.row).label != "unclear"]
    verdicts = _verdicts(counted)
    rows = []
    for source in dict.fromkeys(each.row["source"] for each in counted):
        others = [each for each in counted if each.row["source"] != source]
        chosen = {kind: _best(kind, others, verdicts) for kind in KINDS}
        for each in (each for each in counted if each.row["source"] == source):
            told = truth(each.row)
            rows += [
                {"collection": each.collection, "source": source, "log": each.name, "label": told.label, "rule": kind}
                | {"strictness": chosen[kind], "true": int(kind in told.true), "names": int(kind in told.right)}
                | {"found": int(verdicts[each.name, kind, chosen[kind]]), "as_is": int(verdicts[each.name, kind, 1.0])}
                for kind in KINDS
            ]
    return rows


def _verdicts(logs: list[Labelled]) -> Verdicts:
    found: Verdicts = defaultdict(bool)
    for strictness in GRID:
        tool = entrostat(strictness)
        for each in logs:
            for kind in _standing(tool(each.log.rows, each.end) if each.log else []):
                found[each.name, kind, strictness] = True
    return found


def _standing(reports: list[Any]) -> Iterator[str]:
    for report in reports:
        if report.over is None and RANK.index(report.severity) > 0:
            yield from report.kinds


def _best(kind: str, logs: list[Labelled], verdicts: Verdicts) -> float:
    def worth(strictness: float) -> float:
        told: dict[bool, list[bool]] = {True: [], False: []}
        for each in logs:
            told[kind in truth(each.row).true].append(verdicts[each.name, kind, strictness])
        hits, false = (sum(own) / len(own) if own else 0.0 for own in (told[True], told[False]))
        return hits - false

    worths = [worth(strictness) for strictness in GRID]
    tied = [strictness for strictness, value in zip(GRID, worths, strict=True) if value >= max(worths) - 1e-9]
    return tied[len(tied) // 2]
