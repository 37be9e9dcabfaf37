"""The tables of the benchmarks' READMEs, from their data; `diagnose/` has a page of its own.

    python benchmarks/pages.py    writes what changed

A figure in a table of a README that no data make is an error (`unmade`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "studies"))

from tables import TABLE, Row, fill, read_rows, table  # noqa: E402

from entrostat.runs import t_interval  # noqa: E402

GIVEN = re.compile(r"<!-- given -->.*?<!-- end -->", re.DOTALL)  # a table of settings or aims, which no run made
FIGURE = re.compile(r"(?<![\w.])[+-]?\d*\.\d|\d ?%")


def write_pages() -> None:
    """Fill the tables of each README. FileNotFoundError: a benchmark's data are missing."""
    fill(HERE / "audit" / "README.md", {"audits": audit_table(read_rows(HERE / "audit" / "results.csv"))})
    control = HERE / "control"
    fill(
        control / "README.md",
        {
            "overhead": control_table(read_rows(control / "overhead.csv")),
            "methods": methods_table(read_rows(control / "methods.csv")),
        },
    )
    grading = HERE / "grading"
    fill(
        grading / "README.md",
        {
            "speed": speed_table(read_rows(grading / "speed.csv")),
            "limit": limit_table(read_rows(grading / "limit.csv")),
        },
    )
    score = HERE / "score"
    rows = read_rows(score / "results.csv")
    fill(score / "README.md", {"differences": difference_table(rows), "bounds": bounds_table(rows)})
    stats = read_rows(HERE / "token_stats" / "table.csv")
    fill(HERE / "token_stats" / "README.md", {kind: statistics_table(stats, kind) for kind in ("bfloat16", "float32")})
    trl = HERE / "trl"
    runs = [json.loads(line) for line in (trl / "course.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (trl / "overhead.jsonl").read_text().splitlines()]
    fill(
        trl / "README.md",
        {"overhead": trl_table(steps), "course": course_table(runs), "throughput": throughput_table(runs)},
    )


def unmade(page: Path, made: str = "") -> list[str]:
    """The rows of a page's tables that have figures and stand neither in a table that is filled, nor in `made`."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = GIVEN.sub("", TABLE.sub("", text)).splitlines()
    return [line for line in lines if line.startswith("|") and FIGURE.search(line) and line not in made.splitlines()]


def mutation_rows() -> str:
    """The table of `mutation/`, which its own command prints."""
    folder = HERE / "mutation"
    command = [sys.executable, str(folder / "mutate.py"), "read", *map(str, sorted(folder.glob("sample-*.csv")))]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def audit_table(rows: Sequence[Row]) -> str:
    """What each tool found in each function, with its rates."""
    tools = list(dict.fromkeys(row["tool"] for row in rows))
    of = {(row["function"], row["tool"]): row for row in rows}
    functions = list(dict.fromkeys(row["function"] for row in rows))
    lines = ((f"`{name}`", *(audited(of[name, tool]) for tool in tools)) for name in functions)
    return table(("function", *tools), lines)


def audited(row: Row) -> str:
    """One audit in words."""
    rates = [f"{kind} {row[kind]}" for kind in ("false positives", "false negatives") if row[kind] is not None]
    note = (row["note"] or "").removeprefix(f"{row['tool']}: ").partition(". ")[0]
    return "; ".join([note or row["found"] or "nothing", *rates])


def control_table(rows: Sequence[Row]) -> str:
    """What control costs, as a share of a step."""
    lines = [
        (row["control"], f"{row['step_ms']:.0f}", f"{row['control_ms']:.2f}", percent(row, "share", "low", "high"))
        for row in rows
    ]
    return table(("control", "step, CPU ms", "control, CPU ms", "share [95 % interval]"), lines)


def percent(row: Row, *fields: str) -> str:
    """A share with its interval."""
    value, low, high = (f"{row[field]:.2%}" for field in fields)
    return f"{value} [{low}, {high}]"


def methods_table(rows: Sequence[Row]) -> str:
    """What each method costs beside plain GRPO."""
    lines = [
        (r["kind"], f"`{r['method']}`", r["extra_us"], f"{r['low_us']} to {r['high_us']}", r["share_of_step"])
        for r in rows
    ]
    return table(("kind", "method", "extra, CPU us", "95 % interval", "of a step"), lines)


def speed_table(rows: Sequence[Row]) -> str:
    """The executors' speed, a column each."""
    lines = [
        ("gradings per second", *spread(rows, 0, "gradings per second", "slowest round", "fastest round")),
        ("times evalplus", *spread(rows, 2, "times evalplus", "lowest", "highest")),
        ("processor ms per grading", *spread(rows, 1, "processor ms", "least", "most")),
        (
            "median and p99 latency, one at a time",
            *("" if r["median ms"] is None else f"{r['median ms']:.1f} and {r['p99 ms']:.1f} ms" for r in rows),
        ),
    ]
    return table(("", *(row["executor"] for row in rows)), lines)


def spread(rows: Sequence[Row], digits: int, *fields: str) -> Iterable[str]:
    """`median [least, most]` of each row."""
    for row in rows:
        value, low, high = (f"{row[field]:.{digits}f}" for field in fields)
        yield f"{value} [{low}, {high}]"


def limit_table(rows: Sequence[Row]) -> str:
    """Processor time of a fork up to each layer of isolation."""
    of = {(row["interpreter"], row["up to"]): f"{row['processor ms']:.2f}" for row in rows}
    layers = list(dict.fromkeys(row["up to"] for row in rows))
    lines = [(layer, *(of.get((kind, layer), "") for kind in ("bare", "warm"))) for layer in layers]
    return table(("processor ms up to", "bare", "warm"), lines)


def difference_table(rows: Sequence[Row]) -> str:
    """The largest difference of each statistic."""
    fields = ("logp", "entropy", "collision", "correction")
    lines = [
        (row["against"], *("" if row[field] is None else f"{row[field]:.1e}" for field in fields))
        for row in rows
        if row["k"] is None
    ]
    return table(("`score` against", "ln p (nats)", "H (nats)", "Σ p²", "C (nats)"), lines)


def bounds_table(rows: Sequence[Row]) -> str:
    """How often the entropy lies within its bounds, and how wide they are."""
    lines = [(row["k"], f"{row['inside']:.2%}", f"{row['width']:.3f}") for row in rows if row["k"] is not None]
    return table(("k", "H within its bounds", "mean width (nats)"), lines)


ALL = "ln p, H, Σp², C"
METHODS = {  # what a method gives, and whether it holds all logits
    "matrix product alone": ("nothing", "no"),
    "entrostat fused": (ALL, "no"),
    "entrostat from logits": (ALL, "yes"),
    "materialised": ("ln p, H", "yes"),
    "chunked logp": ("ln p", "no"),
    "chunked logp, exact": ("ln p", "no"),
    "TRL": ("ln p, H", "yes"),
    "verl fused linear": ("ln p, H", "no"),
    "verl from logits": ("ln p, H", "yes"),
    "Liger scaled cross-entropy": ("ln p, H", "no"),
    "Liger GRPO": ("a loss", "no"),
    "cut-cross-entropy (compiled)": ("ln p", "yes"),
}


def statistics_table(rows: Sequence[Row], kind: str) -> str:
    """Time, memory and error of each method in the type `kind`, on the last machine measured."""
    fields = ("forward_s", "both_s", "forward_MB", "both_MB", "logp_error")
    forms = (".2f", ".2f", ".0f", ".0f", ".0e")

    def cells(row: Row) -> list[str]:
        return ["-" if row[f] is None else f"{row[f]:{form}}" for f, form in zip(fields, forms, strict=True)]

    own = [row for row in rows if (row["device"], row["dtype"]) == (rows[-1]["device"], kind)]
    titles = ("forward, s", "with backward, s", "forward, MB", "with backward, MB", "logp error")
    return table(
        (kind, "gives", "holds all logits", *titles), [(r["method"], *METHODS[r["method"]], *cells(r)) for r in own]
    )


def trl_table(rows: Sequence[Any]) -> str:
    """A step of TRL with and without the controller."""
    lines = []
    for row in rows:
        low, high = row["ratio_95"]
        seconds = (f"{row[name]:.3f}" for name in ("plain_median_s", "ours_median_s"))
        lines.append((f"{row['prompt']} + {row['length']}", *seconds, f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]"))
    return table(
        ("tokens: prompt + completion", "plain TRL, median s", "with the controller, median s", "ratio [95 %]"), lines
    )


def course_table(runs: Sequence[Any]) -> str:
    """The entropy of both engines over the quarters of a run, and Welch's interval of their difference."""
    lines = []
    quarter = len(runs[0]["entropy"]) // 4
    for first in range(0, 4 * quarter, quarter):
        ours, theirs = (
            [fmean(run["entropy"][first : first + quarter]) for run in runs if run["engine"] == engine]
            for engine in ("embedded", "trl")
        )
        means = (f"{fmean(values):.4f} ({stdev(values):.4f})" for values in (ours, theirs))
        lines.append((f"{first + 1}-{first + quarter}", *means, welch(ours, theirs)))
    n = sum(run["engine"] == "trl" for run in runs)
    return table(("steps", f"embedded (n = {n}, sd)", f"TRL (n = {n}, sd)", "difference [95 %]"), lines)


def welch(one: Sequence[float], other: Sequence[float]) -> str:
    """The difference of two means with Welch's interval."""
    from scipy.stats import ttest_ind

    low, high = ttest_ind(one, other, equal_var=False).confidence_interval()
    return f"{fmean(one) - fmean(other):+.4f} [{low:+.4f}, {high:+.4f}]"


def throughput_table(runs: Sequence[Any]) -> str:
    """Sampled tokens per CPU second of both engines, seed by seed, and their ratio."""
    rate = {(run["engine"], run["seed"]): run["tokens"] / run["cpu_seconds"] for run in runs}
    seeds = sorted({seed for _, seed in rate})
    ratios = [rate["embedded", seed] / rate["trl", seed] for seed in seeds]
    found = t_interval(ratios)
    lines = [
        *((engine, *(f"{rate[name, seed]:.0f}" for seed in seeds), "") for name, engine in ENGINES.items()),
        ("ratio", *(f"{ratio:.2f}" for ratio in ratios), f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"),
    ]
    return table(("tokens per CPU second", *(f"seed {seed}" for seed in seeds), "mean [95 %]"), lines)


ENGINES = {"embedded": "embedded", "trl": "TRL"}

if __name__ == "__main__":
    write_pages()
