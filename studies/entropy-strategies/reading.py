"""The tables of the study: what a run showed as a row, contrasts with GRPO, how closely curves were held."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Study
from tables import add_rows, contrast_table, contrasts, draw, fill, read_rows, summary, table, write_rows

from entrostat.control import Curve
from entrostat.runs import Run, t_interval

KS = (1, 2, 4, 8, 16, 32)
FROM, WARM, PASSES = 20, 8, 8
SHOWN = ("entropy_end", "pass_1", "pass_32_middle", "pass_32")
FIELDS = (
    "entropy_middle",
    "entropy_end",
    "clipped_low",
    "clipped_high",
    "pass_1_middle",
    "pass_32_middle",
    "pass_1",
    "pass_8",
    "pass_32",
)


def rows_of(study: Study, curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """A row a finished run, by condition and seed."""
    return [row_of(condition, run, curves) for condition in study.conditions for run in study.finished(condition)]


def row_of(condition: str, run: Run, curves: Mapping[str, Curve]) -> dict[str, Any]:
    """Entropy and pass@k at the middle and the end, clip fractions over the passes that can clip, errors by curve."""
    steps, reports = run.steps(), run.evals("report")
    middle, end = reports[len(reports) // 2], reports[-1]
    later = [step for step in steps if step["epoch"] > 0]
    passes = {
        f"pass_{k}{place}": line["pass_at"][str(k)] for place, line in (("_middle", middle), ("", end)) for k in KS
    }
    return {
        "condition": condition,
        "seed": run.seed,
        "entropy_middle": middle["entropy"],
        "entropy_end": end["entropy"],
        "clipped_low": fmean(step["clip_fraction_low"] for step in later),
        "clipped_high": fmean(step["clip_fraction_high"] for step in later),
        **passes,
        "distinct": end["distinct"],
        **{f"error, {name}": error(steps, curve) for name, curve in curves.items()},
    }


def error(steps: Sequence[Mapping[str, Any]], curve: Curve) -> float:
    """Mean of abs(H_k / curve - 1) over the steps k from FROM on, the curve at k / total."""
    total = len(steps)
    return fmean(abs(step["entropy"] / curve.at(step["step"] / total) - 1) for step in steps if step["step"] >= FROM)


def courses_of(study: Study) -> list[dict[str, Any]]:
    """The entropy of every step of every finished run, one row per run."""
    return [
        {"condition": condition, "seed": run.seed, **{str(step["step"]): step["entropy"] for step in run.steps()}}
        for condition in study.conditions
        for run in study.finished(condition)
    ]


def phases_of(study: Study) -> list[dict[str, Any]]:
    """What the rule of every step was to do, in the finished runs under `TargetEntropy`, one row per run."""
    return [
        {"condition": condition, "seed": run.seed, **{str(step["step"]): step["phase"] for step in run.steps()}}
        for condition in study.conditions
        if condition.startswith("target, ")
        for run in study.finished(condition)
    ]


def response(courses: Sequence[Mapping[str, Any]], phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How far one update moved ln H on its own batch: by what the rule in force was to do, and by first or later pass.

    Intervals are over passes, as if these were independent. Beside them the jump from a batch's last entropy to the
    next batch's first, which holds the change of prompts.
    """
    heights = {(row["condition"], row["seed"]): _steps(row) for row in courses}
    moved: dict[tuple[str, str], list[float]] = {}
    for row in phases:
        changes = pairwise(heights[row["condition"], row["seed"]])
        for step, (phase, (before, after)) in enumerate(zip(_steps(row), changes, strict=False), start=1):
            if step <= WARM:
                continue
            place = "first pass" if step % PASSES == 1 else "later pass"
            key = (phase, place) if step % PASSES else ("any", "next batch")
            moved.setdefault(key, []).append(math.log(after / before))
    rows = []
    for (rule, place), found in sorted(moved.items()):
        one = t_interval(found)
        own = {"rule": rule, "where": place, "n": one.n, "mean": one.mean, "low": one.low, "high": one.high}
        rows.append({**own, "deviation": stdev(found)})
    return rows


def _steps(row: Mapping[str, Any]) -> list[Any]:
    return [value for name, value in row.items() if name not in ("condition", "seed")]


def collect(study: Study, curves: Mapping[str, Curve], here: Path) -> None:
    """Add finished runs to results.csv, courses.csv and phases.csv."""
    keys, order = ("condition", "seed"), list(study.conditions)
    add_rows(here / "results.csv", rows_of(study, curves), keys, order)
    add_rows(here / "courses.csv", courses_of(study), keys, order)
    add_rows(here / "phases.csv", phases_of(study), keys, order)


def lines_of(rows: Sequence[Mapping[str, Any]], conditions: Sequence[str], fields: Sequence[str]) -> str:
    """A row per condition, with means and intervals over its seeds."""
    lines = []
    for condition in conditions:
        own = [row for row in rows if row["condition"] == condition]
        lines.append((condition, len(own), *(summary(own, field) for field in fields)))
    return table(("condition", "n", *(_title(field) for field in fields)), lines)


def _title(field: str) -> str:
    name = field.removeprefix("error, ").replace("pass_", "pass@").replace("_", " ")
    return f"{name.removesuffix(' middle')}, middle" if name.endswith(" middle") else name


def read_all(
    rivals: Sequence[str],
    followers: Sequence[str],
    splits: Sequence[str],
    regime: Sequence[str],
    curves: Mapping[str, Curve],
    here: Path,
) -> None:
    """contrasts.csv, response.csv, the README's tables and the figures, from the other CSV files."""
    import drawing

    rows, courses = read_rows(here / "results.csv"), read_rows(here / "courses.csv")
    own = [f"target, {next(iter(curves))}", f"adaptive bonus, {next(iter(curves))}"]
    compared = [*rivals, *own]
    against_grpo = [
        (condition, "GRPO", field)
        for field in ("entropy_middle", "entropy_end", "pass_1", "pass_32_middle")
        for condition in (*compared, *splits)
        if condition != "GRPO"
    ]
    against_target = [
        (condition, own[0], field)
        for field in ("pass_8_middle", "pass_32_middle", "pass_8", "pass_32")
        for condition in compared
        if condition != own[0]
    ]
    found = contrasts(rows, against_grpo + against_target)
    write_rows(here / "contrasts.csv", found)
    followed = {name: f"target, {name}" for name in curves}
    errors = contrasts(rows, [(condition, "GRPO", f"error, {name}") for name, condition in followed.items()])
    write_rows(here / "errors.csv", errors)
    moved = response(courses, read_rows(here / "phases.csv"))
    write_rows(here / "response.csv", moved)
    fill(
        here / "README.md",
        {
            "regime": lines_of(rows, regime, ("entropy_end", "clipped_low", "clipped_high", "pass_1")),
            "response": response_table(moved),
            "rivals": lines_of(rows, compared, FIELDS),
            "contrasts": contrast_table(
                [one for one in found if one["condition"] in compared and one["field"] in SHOWN]
            ),
            "splits": lines_of(
                rows, [*splits, "ID", "DID"], ("entropy_middle", "entropy_end", "pass_1", "pass_32_middle", "pass_32")
            ),
            "error contrasts": contrast_table(errors),
            "errors": lines_of(rows, [*followers, "ID", "DID", "OD", "GRPO"], [f"error, {name}" for name in curves]),
        },
    )
    shown = [row for row in courses if row["condition"] in {*compared, *followers}]
    draw(here / "figure.png", shown, lambda data: drawing.courses(data, [*rivals, own[0]]))
    passes = [f"pass_{k}{place}" for k in KS for place in ("_middle", "")]
    kept = [
        {name: row[name] for name in ("condition", "seed", *passes)} for row in rows if row["condition"] in compared
    ]
    draw(here / "passes.png", kept, lambda data: drawing.passes(data, compared, KS))
    shown = [row for row in courses if row["condition"] in {*followers, "GRPO"}]
    draw(here / "tracking.png", shown, lambda data: drawing.tracking(data, curves, FROM))


def response_table(moved: Sequence[Mapping[str, Any]]) -> str:
    """The response of ln H as a table."""
    return table(
        ("rule", "where", "n", "mean change of ln H [95 % interval]", "standard deviation"),
        [
            (
                one["rule"],
                one["where"],
                one["n"],
                f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]",
                f"{one['deviation']:.3f}",
            )
            for one in moved
        ],
    )
