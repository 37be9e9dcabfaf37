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

from common import Study, cell, contrast, with_committed, write_csv

from entrostat.control import Curve
from entrostat.runs import Run, holm

KS = (1, 2, 4, 8, 16, 32)
FROM, WARM = 20, 8
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


def contrasts(
    rows: Sequence[Mapping[str, Any]], others: Sequence[str], base: str, fields: Sequence[str]
) -> list[dict[str, Any]]:
    """The paired differences of each condition from one, with p-values corrected over all of them (Holm)."""
    found = [
        {"condition": other, **one}
        for field in fields
        for other in others
        if other != base and (one := contrast(rows, other, base, field))
    ]
    for one, p in zip(found, holm([one["p"] for one in found]), strict=True):
        one["p_holm"] = p
    return found


def courses_of(study: Study) -> list[dict[str, Any]]:
    """The entropy of every step of every finished run, a row a run."""
    return [
        {"condition": condition, "seed": run.seed, **{str(step["step"]): step["entropy"] for step in run.steps()}}
        for condition in study.conditions
        for run in study.finished(condition)
    ]


def response(study: Study, conditions: Sequence[str]) -> list[dict[str, Any]]:
    """How far one update moved ln H on its own batch: by what the rule in force was to do, and by first or later pass.

    Beside them the jump from a batch's last entropy to the next batch's first, which holds the change of prompts.
    """
    moved: dict[tuple[str, str], list[float]] = {}
    for condition in conditions:
        for run in study.finished(condition):
            for before, after in pairwise(run.steps()):
                if before["step"] <= WARM:
                    continue
                place = "first pass" if before["epoch"] == 0 else "later pass"
                key = (before["phase"], place) if before["batch"] == after["batch"] else ("any", "next batch")
                moved.setdefault(key, []).append(math.log(after["entropy"] / before["entropy"]))
    return [
        {"rule": rule, "where": place, "n": len(found), "mean": fmean(found), "deviation": stdev(found)}
        for (rule, place), found in sorted(moved.items())
        if len(found) > 1
    ]


def print_response(study: Study, followers: Sequence[str], here: Path) -> None:
    """Write response.csv of the runs under TargetEntropy, where they are at hand, and print it."""
    moved = response(study, [name for name in followers if name.startswith("target,")])
    if not moved:
        return
    write_csv(here / "response.csv", moved)
    print("| rule | where | n | mean change of ln H | standard error | deviation |\n|---|---|---|---|---|---|")
    for one in moved:
        error = one["deviation"] / one["n"] ** 0.5
        print(f"| {one['rule']} | {one['where']} | {one['n']} | {one['mean']:+.4f} | {error:.4f} ", end="")
        print(f"| {one['deviation']:.3f} |")
    print()


def print_table(rows: Sequence[Mapping[str, Any]], conditions: Sequence[str], fields: Sequence[str]) -> None:
    """A row of Markdown a condition, with means and intervals over its seeds."""
    print("| condition | n |", " | ".join(fields), "|")
    print("|---|---|" + "---|" * len(fields))
    for condition in conditions:
        own = [row for row in rows if row["condition"] == condition]
        if own:
            print(f"| {condition} | {len(own)} |", *(f"{cell([row[field] for row in own], 3)} |" for field in fields))
    print()


def read_all(
    study: Study,
    rivals: Sequence[str],
    followers: Sequence[str],
    splits: Sequence[str],
    regime: Sequence[str],
    curves: Mapping[str, Curve],
    here: Path,
) -> None:
    """Write results.csv, contrasts.csv and the figures; print the tables."""
    import drawing

    keys = ("condition", "seed")
    rows = with_committed(rows_of(study, curves), here / "results.csv", keys)
    table = with_committed(courses_of(study), here / "courses.csv", keys)
    write_csv(here / "results.csv", rows)
    write_csv(here / "courses.csv", table)
    print_response(study, followers, here)
    print_table(rows, list(regime), ("entropy_end", "clipped_low", "clipped_high", "pass_1"))
    own = [f"target, {next(iter(curves))}", f"adaptive bonus, {next(iter(curves))}"]
    compared = [*rivals, *own]
    print_table(rows, compared, FIELDS)
    print_table(rows, [*splits, "ID", "DID"], ("entropy_middle", "entropy_end", "pass_1", "pass_32_middle", "pass_32"))
    print_table(rows, [*followers, "ID", "DID", "OD", "GRPO"], [f"error, {name}" for name in curves])
    found = [
        *contrasts(rows, [*compared, *splits], "GRPO", ("entropy_middle", "entropy_end", "pass_1")),
        *contrasts(rows, compared, own[0], ("pass_8_middle", "pass_32_middle", "pass_8", "pass_32")),
    ]
    write_csv(here / "contrasts.csv", found)
    for one in found:
        print(
            f"{one['condition']:<24} - {one['other']:<16} {one['field']:<15} {one['difference']:+.3f} "
            f"[{one['low']:+.3f}, {one['high']:+.3f}] n={one['n']} p {one['p']:.3f}, Holm {one['p_holm']:.2f}"
        )
    drawing.courses(table, [*rivals, own[0]], here / "figure.png")
    drawing.passes(rows, compared, KS, here / "passes.png")
    drawing.tracking(table, curves, here / "tracking.png", FROM)
