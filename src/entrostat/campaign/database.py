"""A study's results in one SQLite file, for any tool that reads SQL.

Everything in it comes from the run folders, so it can be deleted and created again, and a kill loses nothing:

    chains        method, seed, path, recipe (JSON), campaigns_done
    campaigns     one row per finished campaign: steps, peak, end, hand-over, gap and noise floor on the report
                  split; trace_oracle: what online early stop would have handed over, if its step was evaluated
    evaluations   one row per evaluation, with its capability vector; select_share: its share of the select tasks
    decisions     plans, stops, roll-backs and lessons, with their causes; detail: the whole line as JSON
    care_memory   the memory of CARE: strategy, context, capability delta, boundary, confidence
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from entrostat.campaign.chain import campaign_folders, read_lines_of, read_outcome
from entrostat.campaign.single import CampaignOutcome, Lines
from entrostat.campaign.stopping import EarlyStop
from entrostat.runs import Run, RunError, Trajectory, collapse_report, end_to_peak, noise_floor, trace_oracle

TABLES = {
    "chains": ("method TEXT", "seed INTEGER", "path TEXT", "recipe TEXT", "campaigns_done INTEGER"),
    "campaigns": (
        *("method TEXT", "seed INTEGER", "campaign INTEGER", "steps INTEGER", "peak_step INTEGER"),
        *("hand_over_step INTEGER", "start REAL", "peak REAL", "end REAL", "handed_over REAL", "gap REAL"),
        *("noise_floor REAL", "collapsed INTEGER", "end_to_peak REAL", "phase_score REAL", "onset INTEGER"),
        *("decisions_left INTEGER", "trace_oracle REAL", "stopped INTEGER", "seconds REAL", "select_evaluations REAL"),
    ),
    "evaluations": (
        *("method TEXT", "seed INTEGER", "campaign INTEGER", "number INTEGER", "step INTEGER", "split TEXT"),
        *("select_share REAL", "pass_at_1 REAL", "pass_at_k TEXT", "distinct_solutions REAL", "hard REAL"),
        *("entropy REAL", "length REAL", "truncated REAL", "verdicts TEXT", "seconds REAL"),
    ),
    "decisions": (
        *("method TEXT", "seed INTEGER", "campaign INTEGER", "number INTEGER", "step INTEGER", "kind TEXT"),
        *("cause TEXT", "detail TEXT"),
    ),
    "care_memory": (
        *("method TEXT", "seed INTEGER", "campaign INTEGER", "strategy TEXT", "context TEXT", "delta TEXT"),
        *("boundary TEXT", "confidence REAL", "deviation REAL", "revisions INTEGER"),
    ),
}

Row = dict[str, Any]


def chain_folder(study: Path, method: str, seed: int) -> Path:
    """The folder of a method's chain of one seed."""
    return study / method / f"seed-{seed}"


def write_results(study: Path, chains: Sequence[tuple[str, int]]) -> Path:
    """Write the run folders of the (method, seed) `chains` to <study>/results.sqlite, in one transaction.

    RunError: the file cannot be written, or a run folder is damaged; the file is then unchanged.
    """
    path = study / "results.sqlite"
    try:
        with closing(sqlite3.connect(path, timeout=30)) as base, base:
            for table, columns in TABLES.items():
                base.execute(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)})")
            for method, seed in chains:
                for table in TABLES:
                    base.execute(f"DELETE FROM {table} WHERE method = ? AND seed = ?", (method, seed))
                for table, row in _rows(chain_folder(study, method, seed)):
                    whole = {"method": method, "seed": seed, **row}
                    marks = ", ".join(f":{name}" for name in whole)
                    base.execute(f"INSERT INTO {table} ({', '.join(whole)}) VALUES ({marks})", whole)
    except sqlite3.Error as error:
        raise RunError(
            f"{path}: {error}; free space or delete the file, it is created again from the run folders"
        ) from error
    return path


def read_results(study: Path, table: str) -> list[Row]:
    """The rows of a table, in order of method, seed and campaign. RunError: there is no such file, or it is damaged."""
    path = study / "results.sqlite"
    if not path.exists():
        raise RunError(f"{path}: no such file; name the folder of a study")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            base.row_factory = sqlite3.Row
            return [dict(row) for row in base.execute(f"SELECT * FROM {table} ORDER BY method, seed, rowid")]
    except sqlite3.Error as error:
        raise RunError(f"{path}: {error}; delete the file, it is created again from the run folders") from error


def _rows(chain: Path) -> Iterator[tuple[str, Row]]:
    folders = campaign_folders(chain)
    done = 0
    for number, place in enumerate(folders):
        outcome, record = read_outcome(place), Run.open(place)
        if outcome is None:
            break
        done += 1
        select_tasks = int(record.recipe["tasks"]["select"])
        lines = read_lines_of(place, outcome)
        yield "campaigns", {"campaign": number, **_campaign(lines, outcome, select_tasks)}
        for index, line in enumerate(lines.evals):
            yield "evaluations", {"campaign": number, "number": index, **_evaluation(line, select_tasks)}
        for index, line in enumerate(lines.decisions):
            own = {key: line[key] for key in ("step", "kind", "cause")}
            yield "decisions", {"campaign": number, "number": index, **own, "detail": json.dumps(line)}
            if line["kind"] == "memory":
                yield "care_memory", {"campaign": number, **_memory(line)}
    if folders:
        recipe = json.dumps(Run.open(folders[0]).recipe)
        yield "chains", {"path": str(chain), "recipe": recipe, "campaigns_done": done}


def _campaign(lines: Lines, outcome: CampaignOutcome, select_tasks: int) -> Row:
    trace = outcome.trace
    select, report = trace.select, trace.report
    at_peak = (line for line in lines.evals if (line["split"], line["step"]) == ("report", trace.peak.step))
    counts = next(at_peak)["results"]
    dense = trace.confirmed is None and len(select.steps) > 2
    cliff = collapse_report(select, select).cliff if dense else None
    peak, end = report.at(trace.peak.step), report.at(trace.end.step)
    evaluated = sum(len(line["results"]) for line in lines.evals if line["split"] == "select") / select_tasks
    return {
        "steps": trace.steps_used,
        "peak_step": trace.peak.step,
        "hand_over_step": outcome.handed_over.step,
        "start": report.at(0),
        "peak": peak,
        "end": end,
        "handed_over": report.at(outcome.handed_over.step),
        "gap": peak - end,
        "noise_floor": noise_floor([(n, c) for _, n, c in counts], len(select.steps)),
        "collapsed": int(peak - end > 0.2),
        "end_to_peak": end_to_peak(select),
        "phase_score": cliff.phase_score if cliff else None,
        "onset": cliff.onset_largest if cliff else None,
        "decisions_left": cliff.decisions_left if cliff else None,
        "trace_oracle": _trace_oracle(select, report) if dense else None,
        "stopped": int(outcome.stopped),
        "seconds": sum(sum(line["seconds"].values()) for line in lines.steps if "seconds" in line)
        + sum(line.get("seconds") or 0.0 for line in lines.evals),
        "select_evaluations": evaluated,
    }


def _trace_oracle(select: Trajectory, report: Trajectory) -> float | None:
    """What online early stop would have handed over; None if the report split was not evaluated there."""
    try:
        return trace_oracle(select, report, EarlyStop().should_stop)
    except ValueError:
        return None


def _evaluation(line: Mapping[str, Any], select_tasks: int) -> Row:
    results = line["results"]
    return {
        "step": line["step"],
        "split": line["split"],
        "select_share": len(results) / select_tasks if line["split"] == "select" else None,
        "pass_at_1": sum(c / n for _, n, c in results) / len(results),
        "pass_at_k": json.dumps(line.get("pass_at", {})),
        "distinct_solutions": line.get("distinct"),
        "hard": line.get("hard"),
        "entropy": line.get("entropy"),
        "length": line.get("length"),
        "truncated": line.get("truncated"),
        "verdicts": json.dumps(line.get("verdicts", {})),
        "seconds": line.get("seconds"),
    }


def _memory(line: Mapping[str, Any]) -> Row:
    plain = {key: line[key] for key in ("strategy", "boundary", "confidence", "deviation", "revisions")}
    return {**plain, "context": json.dumps(line["context"]), "delta": json.dumps(line["delta"])}
