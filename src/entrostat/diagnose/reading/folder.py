"""Our run folders: the select split and the step lines. The report split is not read: no decision may see it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrostat.diagnose.reading.log import RawLog, flatten
from entrostat.runs import Run, RunError, evaluation_error, mean_over_tasks

ROLLOUT = ("reward", "length", "truncated", "groups.all_right", "groups.all_wrong")


def read(path: Path) -> RawLog:
    """The step and evaluation lines of a run folder; a torn last line is left out, and for damage there is a note."""
    try:
        run = Run.open(path)
        steps, evals, recipe = run.steps(), run.evals("select"), run.recipe
    except RunError as error:
        return RawLog("run folder", [], notes=(f"read as far as it goes: {error}",))
    rows = [row for line in steps if (row := step_row(line))] + [row for line in evals if (row := eval_row(line))]
    end = recipe.get("campaign", {}).get("steps") if isinstance(recipe.get("campaign"), Mapping) else None
    return RawLog("run folder", rows, end if isinstance(end, int) else None)


def step_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """A step line as a raw row; what describes the rollout is taken from its first step only, for it repeats after."""
    row = flatten(line)
    row.pop("clip_fraction", None)
    if row.get("tokens.rollout") == 0:
        for name in ROLLOUT:
            row.pop(name, None)
    return row


def eval_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation line of the select split as a raw row: pass@1 and its standard error; empty for another split."""
    counts = [(n, c) for _, n, c in line.get("results", ())]
    if line.get("split") != "select" or not counts:
        return {}
    return {"step": line["step"], "select": mean_over_tasks(counts, k=1), "select_error": evaluation_error(counts)}
