"""Rows of several kinds in one log: an evaluation's `reward` is not the rollout's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from entrostat.diagnosis.reading.steps import is_step_name

KIND_NAMES = ("type", "kind", "event", "split", "phase", "mode", "stage", "record_type", "row_type", "_type")
METRIC_NAMES = ("metric", "metric_name", "tag", "key", "name", "variable", "metricName", "metric_key")
VALUE_NAMES = ("value", "metric_value", "scalar", "metricValue")
EVALUATION = re.compile(r"(?:^|[/_\s.-])(eval\w*|val|valid|validation|test|heldout|held_out|dev)(?:$|[/_\s.-])", re.I)
PLAIN = re.compile(r"[A-Za-z][\w./ -]{0,40}")


def as_evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an evaluation: its columns are called `eval/...`, the step's aside, unless they say so themselves."""
    return {
        name if EVALUATION.search(name) or is_step_name(name) else f"eval/{name}": value for name, value in row.items()
    }


def kinds_apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their kind before each column's name, if a column of the log says of what kind a row is.

    `{"type": "eval", "reward": 0.3}` gives `eval/reward`. Only a column of a few short words is one of kinds.
    """
    rows = wide(rows)
    name = _kind_column(rows)
    if name is None:
        return rows
    apart = []
    for row in rows:
        kind = row.get(name)
        if not isinstance(kind, str):
            apart.append(row)
            continue
        prefix = "eval" if EVALUATION.search(kind) else kind.strip()
        apart.append(
            {
                own if is_step_name(own) or own.startswith(f"{prefix}/") else f"{prefix}/{own}": value
                for own, value in row.items()
                if own != name
            }
        )
    return apart


def wide(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one value each, as in `step,metric,value`, with a column per metric; other rows as they are."""
    columns = set[str]().union(*rows[:50])
    name = next((each for each in METRIC_NAMES if each in columns), None)
    cell = next((each for each in VALUE_NAMES if each in columns), None)
    if name is None or cell is None or not any(map(is_step_name, columns)):
        return rows
    return [
        {**{own: value for own, value in row.items() if own not in (name, cell)}, str(row[name]): row.get(cell)}
        for row in rows
        if name in row
    ]


def _kind_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    names = {name for shape in set(map(tuple, rows)) for name in shape}
    for name in (name for name in KIND_NAMES if name in names):
        kinds = {row[name] for row in rows if isinstance(row.get(name), str)}
        if 2 <= len(kinds) <= 12 and all(PLAIN.fullmatch(kind) for kind in kinds):
            return name
        if len(kinds) == 1 and EVALUATION.search(next(iter(kinds))):
            return name
    return None
