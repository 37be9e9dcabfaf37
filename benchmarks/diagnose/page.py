"""The tables of README.md and of docs/diagnose.md, and the figure, from the committed data alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from picture import figure, shown
from shares import (
    CLEAR,
    CONTROL,
    OURS,
    PLAIN,
    REMARK,
    Choice,
    Results,
    Row,
    alarmed_real,
    best,
    by_setting,
    count,
    found_made,
    found_real,
    middle,
    name_of,
    of,
    share,
    trade_off,
    worth_made,
    worth_real,
)
from synthetic import FAILURES
from tables import draw, fill, read_rows, table

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "diagnose.md"
PUBLIC, REAL, MADE, EARLY = (HERE / name for name in ("public.csv", "real.csv.gz", "made.csv.gz", "early.csv"))
LEFT_OUT = HERE / "left_out.csv.gz"
OVERHEAD, LONG, FIGURE = HERE / "overhead.csv", HERE / "long_log.csv", HERE / "figure.png"

ALONE = ("entropy alone", "score alone")
BINS = {".1 to .3": (0.1, 0.3), ".4 to .6": (0.4, 0.6), ".7 to 1": (0.7, 1.0)}


def read() -> None:
    """Write the tables and the figure, each only where it changes."""
    real, made, early = by_setting(read_rows(REAL)), by_setting(read_rows(MADE)), read_rows(EARLY)
    on_real, on_made = best(real, worth_real), best(made, worth_made)
    summary, held = sum_table(real, on_real, made, on_made), early_table(early)
    fill(DOCS, {"sum": summary, "early warning": held})
    fill(
        HERE / "README.md",
        {
            "sum": summary,
            "real": real_table(real, on_real),
            "public logs": log_table(real, on_real, "public"),
            "own logs": log_table(real, on_real, "own"),
            "sources": source_table(real[OURS, PLAIN]),
            "left out": left_out_table(read_rows(LEFT_OUT)),
            "severity": severity_table(made, on_made),
            "trade-off": trade_off_table(made),
            "sound": sound_table(made[OURS, PLAIN]),
            "noise": noise_table(made[OURS, PLAIN]),
            "early warning": held,
            "cost": cost_table(read_rows(OVERHEAD)),
            "long log": long_log_table(read_rows(LONG)),
        },
    )
    draw(FIGURE, shown(real, on_real, made, on_made), figure)


def sum_table(real: Results, on_real: dict[str, Choice], made: Results, on_made: dict[str, Choice]) -> str:
    """Every tool at its best, in sum: public logs, own logs, logs made to order."""
    points = {(point.tool, point.choice): point for point in trade_off(made)}
    lines = []
    for tool, choice in on_real.items():
        if tool not in ALONE:
            cells = _real_cells(real[tool, choice.setting], choice.critical)
            point = points[tool, on_made[tool]]
            lines.append((tool, cells[0], cells[2], cells[4], cells[6], share(point.clear), share(point.alarmed)))
    logs = ("public logs", "own logs", "made to order")
    return table(("tool", *(f"{name}: {part}" for name in logs for part in ("found", "alarmed"))), lines)


# --- thresholds set without the logs that judge them ---


def left_out_table(rows: list[Row]) -> str:
    """By rule and in sum: what is found and alarmed on logs of a source without which thresholds were set."""
    lines = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        own = of(rows, rule=rule)
        used = sorted({row["strictness"] for row in own})
        chosen = f"{used[0]:g}" if len(used) == 1 else f"{used[0]:g} to {used[-1]:g}"
        right, others = of(own, true=1), of(own, true=0)
        cells = [share(row[name] for row in part) for part in (right, others) for name in ("found", "as_is")]
        lines.append((rule, chosen, *cells))
    logs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        logs.setdefault((row["collection"], row["log"]), []).append(row)
    failing = [own for own in logs.values() if own[0]["label"] == "collapsed"]
    healthy = [own for own in logs.values() if own[0]["label"] == "healthy"]
    hits = [share(any(row[name] and row["names"] for row in own) for own in failing) for name in ("found", "as_is")]
    false = [share(any(row[name] and not row["true"] for row in own) for own in healthy) for name in ("found", "as_is")]
    lines.append(("any, by its right name; healthy logs", "", *hits, *false))
    parts = (f"{part}, {how}" for part in ("found", "alarmed") for how in ("left out", "as it is"))
    return table(("rule", "strictness", *parts), lines)


# --- real logs ---


def real_table(real: Results, on_real: dict[str, Choice]) -> str:
    """Every tool on all labelled logs: by its defaults, and by its best setting where that is another."""
    lines = []
    for tool, choice in on_real.items():
        first = Choice(next(setting for name, setting in real if name == tool))
        for each in (choice,) if tool in (OURS, CONTROL) else dict.fromkeys((first, choice)):
            lines.append((tool, str(each), *_real_cells(real[tool, each.setting], each.critical)))
    parts = ("found", "rows late", "healthy alarmed", "healthy, withdrawn")
    return table(("tool", "setting", *(f"{part}, {where}" for where in ("public", "own") for part in parts)), lines)


def _real_cells(rows: list[Row], critical: bool) -> list[str]:
    cells = []
    for collection in ("public", "own"):
        own = of(rows, collection=collection)
        healthy, failing = of(own, label="healthy"), of(own, label="collapsed")
        cells += [
            share(found_real(row, critical) for row in failing),
            middle([row["delay_rows"] for row in failing if found_real(row, critical)]),
            share(alarmed_real(row, critical) for row in healthy),
            count(row["withdrawn"] for row in healthy),
        ]
    return cells


def verdict(row: Row, critical: bool = False) -> str:
    """What one tool made of one log, in a word, with the delay in steps and in logged rows."""
    if not row["read"]:
        return "unread"
    if row["label"] == "unclear":
        return ""
    if row["label"] == "healthy":
        return row["false"].replace("critical", "CRITICAL") if alarmed_real(row, critical) else "quiet"
    if not found_real(row, critical):
        return "missed"
    late = "" if row["delay_steps"] is None else f" {row['delay_steps']:+d} ({row['delay_rows']:+d})"
    return ("found" if row["found"] == "main" else "other kind") + late


def log_table(real: Results, on_real: dict[str, Choice], collection: str) -> str:
    """A line per log: ours in full, of the others the verdict."""
    others = {
        tool: {row["log"]: row for row in of(real[tool, choice.setting], collection=collection)}
        for tool, choice in on_real.items()
        if tool not in (OURS, *ALONE)
    }
    lines = []
    for row in of(real[OURS, PLAIN], collection=collection):
        true = f"{row['kind']} from {row['onset']} on" if row["label"] == "collapsed" else row["label"]
        theirs = [verdict(rows[row["log"]], on_real[tool].critical) for tool, rows in others.items()]
        lines.append((row["log"], true, verdict(row), row["standing"] or "", row["withdrawn"] or "", *theirs))
    lines.sort(key=lambda line: {"healthy": 1, "unclear": 2}.get(line[1], 0))
    return table(("log", "truth", OURS, "stands at the end", "withdrawn", *map(name_of, others)), lines)


def source_table(rows: list[Row]) -> str:
    """By the repository that the logs are of, for logs of one are siblings."""
    lines = []
    for source in dict.fromkeys(row["source"] for row in rows):
        own = of(rows, source=source)
        healthy = of(own, label="healthy")
        lines.append(
            (
                source,
                count(row["read"] for row in own),
                count(found_real(row) for row in of(own, label="collapsed")),
                count(alarmed_real(row) for row in healthy),
                count(row["withdrawn"] for row in healthy),
                len(of(own, label="unclear")),
            )
        )
    return table(("source", "read", "found", "healthy alarmed", "healthy, withdrawn", "not counted"), lines)


# --- logs made to order ---


def severity_table(made: Results, on_made: dict[str, Choice]) -> str:
    """Recall by kind and severity: ours and the rules over ten severities, the others at the severest two."""
    others = {tool: choice for tool, choice in on_made.items() if tool not in (OURS, CONTROL)}
    lines = []
    for kind, failure in FAILURES.items():
        cells = []
        for tool in (OURS, CONTROL):
            rows = of(made[tool, PLAIN], kind=kind)
            each = [[row["found"] for row in rows if low <= row["severity"] <= high] for low, high in BINS.values()]
            cells += [*map(count, each[:-1]), share(each[-1])]
            if tool == OURS:
                cells.append(count(row["live"] for row in rows if row["severity"] >= CLEAR[0]))
        for tool, choice in others.items():
            rows = of(made[tool, choice.setting], kind=kind)
            cells.append(count(found_made(row, choice.critical) for row in rows if row["severity"] in CLEAR))
        lines.append((kind, failure.at_one, *cells))
    head = [*(f"{OURS}, {part}" for part in BINS), "at some time, .7 to 1", *(f"rules, {part}" for part in BINS)]
    head += [f"{name_of(tool)} ({choice}), .7 and 1" for tool, choice in others.items()]
    return table(("failure", "at severity 1", *head), lines)


def trade_off_table(made: Results) -> str:
    points = trade_off(made)
    seeds = sorted({str(row["seed"]) for rows in made.values() for row in rows})
    head = ("tool", "setting", "found, .7 and 1", "rows late", "found, .4", "sound alarmed", "at some time")
    counts = table(
        head,
        (
            (
                *(point.tool, str(point.choice), share(point.clear), middle(point.delays)),
                *(share(each) for each in (point.slight, point.alarmed, point.live)),
            )
            for point in points
            if not (point.choice.critical and point.tool == CONTROL)  # the rules have one degree
        ),
    )
    return f"{counts}\n\nSeed {', '.join(seeds)}."


def sound_table(rows: list[Row]) -> str:
    """What alarms a sound log."""
    sound = of(rows, kind="sound")
    kinds = sorted({kind for row in sound for kind in (row["alarmed_live"] or "").split()})
    columns = ("alarmed", "alarmed_live")
    lines = [(kind, *(share(kind in (row[name] or "").split() for row in sound) for name in columns)) for kind in kinds]
    lines.append(("any", *(share(row[name] for row in sound) for name in columns)))
    return table(("finding", "stands at the end", "at some time"), lines)


SPLITS: dict[str, Callable[[Row], bool]] = {
    "noise is white": lambda row: row["lasting"] == 0,
    "it lasts: correlation .5": lambda row: row["lasting"] == 0.5,
    "correlation .8": lambda row: row["lasting"] == 0.8,
    "correlation .95": lambda row: row["lasting"] == 0.95,
    "noise is half as large": lambda row: row["noise"] == 0.5,
    "as it is": lambda row: row["noise"] == 1,
    "twice as large": lambda row: row["noise"] == 2,
    "40 to 80 rows": lambda row: row["rows"] <= 80,
    "160 rows": lambda row: 80 < row["rows"] <= 160,
    "320 rows": lambda row: row["rows"] > 160,
    "every step is logged": lambda row: row["every"] == 1,
    "every second or fourth": lambda row: row["every"] > 1,
    "with a held-out score": lambda row: row["heldout"] == 1,
    "without": lambda row: row["heldout"] == 0,
}


def noise_table(rows: list[Row]) -> str:
    """By what was drawn for the logs: how long noise lasts, how large it is, how many rows, a held-out score."""
    lines = []
    for name, chosen in SPLITS.items():
        own = [row for row in rows if row["kind"] != REMARK and chosen(row)]
        clear, sound = [row for row in own if row["severity"] >= CLEAR[0]], of(own, kind="sound")
        lines.append(
            (
                name,
                share(row["found"] for row in clear),
                share(row["found"] for row in of(clear, kind="rise then fall")),
                share(row["alarmed"] for row in sound),
                share(row["alarmed_live"] for row in sound),
            )
        )
    return table(("logs", "found, .7 to 1", "rise then fall", "sound alarmed", "at some time"), lines)


# --- early warning ---


def early_table(early: list[Row]) -> str:
    lines = []
    for tool in (OURS, CONTROL):
        for evaluated in dict.fromkeys(row["evaluated"] for row in early):
            rows = of(early, tool=tool, evaluated=evaluated)
            fell, sound = [row for row in rows if row["fall"] is not None], of(rows, fall=None)
            delays = [row["delay"] for row in fell if row["delay"] is not None]
            lines.append(
                (
                    *(tool, evaluated, share(row["reported"] for row in fell), middle(delays)),
                    sum(delay < 0 for delay in delays),
                    *(share(row[name] for row in sound) for name in ("reported", "stands")),
                )
            )
    found_by = ("falls found", "steps late", "before the fall")
    return table(("tool", "evaluated", *found_by, "sound runs alarmed", "at their end"), lines)


# --- cost ---


def cost_table(overhead: list[Row]) -> str:
    """What the watchdog takes inside a run."""
    lines = []
    for host, name in (("embedded", "embedded engine"), ("trl", "TRL callback")):
        (plain,), (watched,) = (of(overhead, host=host, watched=each) for each in ("False", "True"))
        lines.append(
            (
                name,
                f"{watched['watch_cpu_ms_a_step']:.2f} ms",
                f"{watched['run_cpu_seconds'] / watched['steps']:.2f} s",
                f"{watched['watch_share']:.2%}",
                f"{watched['run_cpu_seconds']:g} s, {plain['run_cpu_seconds']:g} s",
            )
        )
    whole = "CPU of the run, watched and not"
    return table(("watchdog", "CPU per step", "CPU of the run per step", "share of wall time", whole), lines)


def long_log_table(rows: list[Row]) -> str:
    """CPU seconds over a long log."""
    seconds = ("read_seconds", "detect_seconds", "command_seconds")
    head = ("log", "rows", "reading", "detecting", "the whole command", "times `import numpy`")
    return table(
        head,
        (
            (x["log"], x["rows"], *(f"{x[name]:.2f} s" for name in seconds), f"{x['times_import_numpy']:.1f}")
            for x in rows
        ),
    )
