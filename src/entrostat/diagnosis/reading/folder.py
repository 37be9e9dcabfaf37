"""Runs that are folders: ours, and those of MLflow's file store.

Of ours the select split and the step lines are read. The report split is not: no decision may see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entrostat.diagnosis.reading.document import json_object
from entrostat.diagnosis.reading.log import RawLog, flatten
from entrostat.diagnosis.reading.text import decoded
from entrostat.runs import evaluation_error, mean_over_tasks
from entrostat.runs.schema import under_new_names

MLFLOW_POINT = re.compile(r"(\d{10,16}) (\S{1,40}) (\d{1,15})")
ROLLOUT = ("reward", "length", "truncated", "groups.all_right", "groups.all_wrong")


def read(path: Path) -> RawLog:
    """The step and evaluation lines of a run folder. Lines that are damaged or torn are left out, and counted."""
    notes: list[str] = []
    steps, evals = (_lines(path / name, notes) for name in ("steps.jsonl", "evals.jsonl"))
    rows = [row for line in steps if (row := step_row(line))] + [row for line in evals if (row := eval_row(line))]
    return RawLog("run folder", rows, _end(path, notes), tuple(notes))


def _lines(file: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    text, said = decoded(file.read_bytes())
    lines = [line for line in text.splitlines() if line.strip()]
    found = [row for line in lines if (row := json_object(line)) is not None]
    if len(found) < len(lines):
        said = (*said, f"{len(lines) - len(found)} damaged or torn lines left out")
    notes += [f"{file.name}: {note}" for note in said]
    return found


def _end(path: Path, notes: list[str]) -> int | None:
    """The recipe's number of steps; None, with a note, where run.json does not give it."""
    header = json_object(decoded((path / "run.json").read_bytes())[0])
    if header is None:
        notes.append("run.json: damaged, so the run's number of steps is not known")
    steps = flatten(header or {}).get("recipe.campaign.steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def step_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """A step line as a raw row; what describes the rollout is taken from its first step only, for it repeats after.

    Empty for a supervised step after a restart from traces: its entropy and ratios are those of the banked completions,
    and such a step lowers their entropy by design.
    """
    if "traces" in line:
        return {}
    row = flatten(under_new_names(line))
    row.pop("clip_fraction", None)
    if row.get("tokens.rollout") == 0:
        for name in ROLLOUT:
            row.pop(name, None)
    return row


def eval_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation line of the whole select split as a raw row: pass@1 and its standard error; empty for another
    split, for a part of it, and for a line that is no evaluation."""
    if line.get("split") != "select" or line.get("tasks"):
        return {}
    try:
        counts = [(int(n), int(c)) for _, n, c in line["results"]]
        score, error = mean_over_tasks(counts, k=1), evaluation_error(counts)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return {}
    return {"step": line.get("step"), "select": score, "select_error": error}


def mlflow_runs(path: Path) -> list[Path]:
    """The folders of MLflow's runs below a folder, `RUN/metrics/NAME` with a line per value, the newest last."""
    runs = [each for each in sorted(path.rglob("metrics")) if each.is_dir() and any(_points(each))]
    return sorted(runs, key=lambda run: max(time for _, time, _, _ in _points(run)))


def read_mlflow(path: Path) -> RawLog:
    """The rows of one run's folder `metrics`; a metric's name is its path in there."""
    rows: dict[int, dict[str, Any]] = {}
    for name, _, value, step in _points(path):
        rows.setdefault(step, {"step": step})[name] = value
    return RawLog("MLflow", [rows[step] for step in sorted(rows)])


def _points(path: Path) -> Iterator[tuple[str, int, str, int]]:
    """(name, time, value, step) of each line `TIME VALUE STEP` below a folder `metrics`."""
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        for line in decoded(file.read_bytes())[0].splitlines():
            if point := MLFLOW_POINT.fullmatch(line.strip()):
                yield file.relative_to(path).as_posix(), int(point[1]), point[2], int(point[3])
