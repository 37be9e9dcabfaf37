"""Shares with their intervals, and the rows of one tool in one setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Row = dict[str, Any]
Results = dict[tuple[str, str], list[Row]]  # (tool, setting) -> its rows

OURS, CONTROL = "entrostat", "one-line rules"
PLAIN = "strictness 1"  # the default of both
CLEAR, SLIGHT = (0.7, 1.0), (0.4,)  # severities at which every tool was tried
REMARK = "plateau"  # never a failure: it has a curve of its own and no part in sums


class Choice(NamedTuple):
    """A setting of a tool, and whether only its critical reports count."""

    setting: str
    critical: bool = False

    def __str__(self) -> str:
        plain = "defaults" if self.setting == PLAIN else self.setting
        return plain + (", critical alone" if self.critical else "")


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    found = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def share(values: Iterable[Any]) -> str:
    """`k of n [low, high]`, the interval Wilson's."""
    each = [bool(value) for value in values]
    if not each:
        return "-"
    low, high = wilson(sum(each), len(each))
    return f"{sum(each)} of {len(each)} [{low:.2f}, {high:.2f}]"


def count(values: Iterable[Any]) -> str:
    """`k of n`."""
    each = [bool(value) for value in values]
    return f"{sum(each)} of {len(each)}" if each else "-"


def middle(values: Sequence[float]) -> str:
    """The median with its 95 % interval from the order statistics; alone where the values are too few for one."""
    if not values:
        return "-"
    centre = float(np.median(values))
    interval = stats.quantile_test(values, q=centre, p=0.5).confidence_interval(0.95)
    known = np.isfinite([interval.low, interval.high]).all()
    return f"{centre:g} [{interval.low:g}, {interval.high:g}]" if known else f"{centre:g}"


def by_setting(rows: Iterable[Row]) -> Results:
    found: Results = {}
    for row in rows:
        found.setdefault((row["tool"], row["setting"]), []).append(row)
    return found


def of(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def name_of(tool: str) -> str:
    """A tool without its version."""
    name, _, version = tool.rpartition(" ")
    return name if version[:1].isdigit() else tool


def best(results: Results, worth: Callable[[list[Row], bool], float]) -> dict[str, Choice]:
    """Tool -> the choice that is worth most by these very rows; ours and the rules at their defaults."""
    chosen: dict[str, tuple[float, Choice]] = {}
    for (tool, setting), rows in results.items():
        for critical in (False, True):
            value = worth(rows, critical)
            if tool not in chosen or value > chosen[tool][0]:
                chosen[tool] = (value, Choice(setting, critical))
    plain = {tool: Choice(PLAIN) for tool in (OURS, CONTROL)}
    return {tool: plain.get(tool, choice) for tool, (_, choice) in chosen.items()}


def found_real(row: Row, critical: bool = False) -> bool:
    return bool(row["critical"]) if critical else row["found"] in ("main", "other")


def alarmed_real(row: Row, critical: bool = False) -> bool:
    return row["false"] == "critical" or (row["false"] == "warning" and not critical)


def worth_real(rows: list[Row], critical: bool) -> float:
    """The share of failing logs found less that of healthy ones alarmed."""
    hits = [found_real(row, critical) for row in rows if row["label"] == "collapsed"]
    false = [alarmed_real(row, critical) for row in rows if row["label"] == "healthy"]
    return sum(hits) / len(hits) - sum(false) / len(false)


def found_made(row: Row, critical: bool = False) -> bool:
    return bool(row["found_critical"] if critical else row["found"])


def alarmed_made(row: Row, critical: bool = False) -> bool:
    return bool(row["alarmed_critical"] if critical else row["alarmed"])


def worth_made(rows: list[Row], critical: bool) -> float:
    """The share of clear failures found less that of sound logs alarmed."""
    hits = [found_made(row, critical) for row in rows if row["severity"] in CLEAR and row["kind"] != REMARK]
    false = [alarmed_made(row, critical) for row in rows if row["kind"] == "sound"]
    return sum(hits) / len(hits) - sum(false) / len(false)


class Point(NamedTuple):
    """One choice of one tool over the logs made to order that every tool was tried on, plateaus aside."""

    tool: str
    choice: Choice
    clear: list[bool]
    slight: list[bool]
    alarmed: list[bool]
    live: list[bool]
    delays: list[int]


def trade_off(made: Results) -> list[Point]:
    shared = set.intersection(*({_log(row) for row in rows} for rows in made.values()))
    points = []
    for (tool, setting), every in made.items():
        rows = [row for row in every if row["kind"] != REMARK and _log(row) in shared]
        sound, clear = of(rows, kind="sound"), [row for row in rows if row["severity"] in CLEAR]
        for critical in (False, True):
            points.append(
                Point(
                    tool,
                    Choice(setting, critical),
                    [found_made(row, critical) for row in clear],
                    [found_made(row, critical) for row in rows if row["severity"] in SLIGHT],
                    [alarmed_made(row, critical) for row in sound],
                    [] if critical else [bool(row["alarmed_live"]) for row in sound],
                    [] if critical else [row["delay_rows"] for row in clear if row["delay_rows"] is not None],
                )
            )
    return points


def _log(row: Row) -> tuple[Any, ...]:
    return row["seed"], row["kind"], row["severity"], row["number"]
