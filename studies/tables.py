"""The data that a study commits, and what is made of it: tables in its README, statistics, figures.

Data are CSV files, which `collect` fills from run folders. All else is computed from these files alone, so `read` gives
the same anywhere: it writes a file only where its content changes, whole or not at all.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from entrostat.report.style import BLUE, MUTED, SETTINGS
from entrostat.runs import Estimate, atomic_write, mean_interval, planned_contrasts, share_interval

Row = dict[str, Any]
DATA = "Data"  # the key in a PNG's metadata under which the digest of its data stands
NUMBER = r"[+-]?\d*\.?\d+"
TABLE = re.compile(r"<!-- table: .*?<!-- end -->", re.DOTALL)
SAMPLE = re.compile(r"^```.*?^```|^>.*?$", re.MULTILINE | re.DOTALL)  # what a command prints, of another run
SHARE = re.compile(r"pass_|start_\d|train_|clipped_|(success|reward|handed_over|lost|hard|peak|end)$")
INTERVAL = re.compile(rf"({NUMBER})(?: nats)?\s\[({NUMBER}), ({NUMBER})\]")


# --- data ---


def read_rows(path: Path) -> list[Row]:
    """The rows of a .csv or .csv.gz file; numbers as numbers, empty cells as None. FileNotFoundError: there is none."""
    text = _text(path)
    if text is None:
        raise FileNotFoundError(f"{path}: no such table; `collect` makes it from run folders")
    return [{name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], digits: int = 4) -> None:
    """Write rows that share their columns, floats with `digits` significant digits, unless the file says just that.

    ValueError: no rows, or rows whose columns differ; the file stays as it was.
    """
    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ValueError(f"{path}: {len(rows)} rows; give at least one, all with the columns of the first")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value, digits) for name, value in row.items()} for row in rows)
    if text.getvalue() == _text(path):
        return
    plain = text.getvalue().encode()
    atomic_write(path, gzip.compress(plain, compresslevel=9, mtime=0) if path.suffix == ".gz" else plain)


def add_rows(path: Path, rows: Iterable[Row], keys: Sequence[str], order: Sequence[str], digits: int = 4) -> None:
    """Put `rows` in place of those with the same `keys`; the first key sorts by `order`, the rest by value.

    Rows that `path` holds of runs that are no longer at hand stay. A file changes only if there are rows.
    """
    new = list(rows)
    if not new:
        return
    measured = {tuple(row[key] for key in keys) for row in new}
    kept = [row for row in (read_rows(path) if path.exists() else []) if tuple(row[k] for k in keys) not in measured]
    rest = keys[1:]
    found = sorted(kept + new, key=lambda row: (order.index(row[keys[0]]), *(row[key] for key in rest)))
    write_rows(path, found, digits)


def _text(path: Path) -> str | None:
    if not path.exists():
        return None
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def _cell(value: Any, digits: int) -> Any:
    return f"{value:.{digits}g}" if isinstance(value, float) else value


def _value(text: str) -> Any:
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


# --- statistics ---


def interval(found: Estimate, digits: int = 2, sign: str = "") -> str:
    """`mean [low, high]`, the mean alone where there is no interval."""
    mean = f"{found.mean:{sign}.{digits}f}"
    return mean if found.low is None else f"{mean} [{found.low:{sign}.{digits}f}, {found.high:{sign}.{digits}f}]"


def cell(values: Sequence[float], digits: int = 2, least: float = -math.inf, most: float = math.inf) -> str:
    """`mean [low, high]` over seeds, with the 95 % interval that suits their number, cut at what is possible at all.

    Of shares, between 0 and 1, it is `share_interval`.
    """
    found = share_interval(values) if (least, most) == (0, 1) else mean_interval(values)
    if found.low is not None and found.high is not None:
        found = replace(found, low=max(found.low, least), high=min(found.high, most))
    return interval(found, digits)


def summary(rows: Sequence[Mapping[str, Any]], field: str, digits: int = 3) -> str:
    """`cell` of a field; what is no share, such as an entropy or a count, is not negative."""
    return cell([row[field] for row in rows], digits, 0, 1 if SHARE.match(field) else math.inf)


def contrasts(rows: Sequence[Mapping[str, Any]], planned: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Paired differences over the seeds that two conditions share, p corrected over all that are planned (Holm).

    planned: (condition, the condition it is compared with, field). Left out: a pair that shares fewer than two seeds.
    """
    of = {(row["condition"], row["seed"]): row for row in rows}
    pairs = {}
    for one, other, field in planned:
        seeds = [seed for condition, seed in of if condition == one and (other, seed) in of]
        if len(seeds) > 1:
            pairs[one, other, field] = tuple([of[name, seed][field] for seed in seeds] for name in (one, other))
    return [
        {
            "condition": one,
            "other": other,
            "field": field,
            "n": found.difference.n,
            "difference": found.difference.mean,
            "low": found.difference.low,
            "high": found.difference.high,
            "p": found.p_value,
            "p_holm": found.p_holm,
            "p_sign": found.sign.p_value,
            "p_permutation": found.permutation.p_value,
            "p_least": found.permutation.least,
        }
        for (one, other, field), found in planned_contrasts(pairs).items()
    ]


# --- the README ---


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def contrast_table(found: Sequence[Mapping[str, Any]], digits: int = 3) -> str:
    """Contrasts as a table: difference with its interval, n, p of the paired t-test and after Holm's correction."""
    head = ("difference", "of", "mean [95 % interval]", "n", "p", "Holm p")
    return table(
        head,
        (
            (f"{x['condition']} - {x['other']}", x["field"], differs(x, digits), x["n"], _p(x["p"]), _p(x["p_holm"]))
            for x in found
        ),
    )


def cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Runs and the CPU time of all of them, from their column `seconds`."""
    seconds = sum(row["seconds"] for row in rows)
    line = (len(rows), f"{seconds / len(rows):.2f}", f"{seconds / 60:.1f}", f"{seconds / 3600:.2f}")
    return table(("runs", "CPU seconds per run", "CPU minutes in all", "core-hours"), [line])


def differs(x: Mapping[str, Any], digits: int = 3) -> str:
    """The difference of a contrast with its interval, signs shown."""
    return f"{x['difference']:+.{digits}f} [{x['low']:+.{digits}f}, {x['high']:+.{digits}f}]"


def _p(p: float) -> str:
    return "< .001" if p < 0.0005 else f"{p:.3f}"


def fill(readme: Path, tables: Mapping[str, str]) -> None:
    """Put each table between its markers, `<!-- table: NAME -->` and `<!-- end -->`.

    ValueError: a table has no markers, markers have no table, or the prose, samples of output aside, quotes an interval
    that no table holds; the file stays as it was.
    """
    text = readme.read_text()
    names = re.findall(r"<!-- table: (.*?) -->", text)
    if sorted(names) != sorted(tables):
        raise ValueError(f"{readme}: has the tables {sorted(names)}, but these are made: {sorted(tables)}")
    for name, content in tables.items():
        pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, content=content: f"{found[1]}\n{content}\n\n{found[2]}", text)
        if count != 1:
            raise ValueError(f"{readme}: table {name!r} has no end; close it with <!-- end -->")
    unknown = unfounded(re.sub(SAMPLE, "", re.sub(TABLE, "", text)), "\n".join(tables.values()))
    if unknown:
        raise ValueError(f"{readme}: intervals in the text that no table holds: {', '.join(unknown)}")
    if text != readme.read_text():
        atomic_write(readme, text.encode())


def unfounded(text: str, evidence: str) -> list[str]:
    """Each `mean [low, high]` in `text` that is none in `evidence` at the digits of the text; signs may be turned."""
    known = np.array([[float(x) for x in found] for found in INTERVAL.findall(evidence)]).reshape(-1, 3)
    known = np.concatenate([known, -known[:, [0, 2, 1]]])
    faults = []
    for found in INTERVAL.findall(text):
        step = 10.0 ** -max(len(x.partition(".")[2]) for x in found)
        if not (abs(known - [float(x) for x in found]).max(1, initial=0) <= 0.5001 * step).any():
            faults.append(f"{found[0]} [{found[1]}, {found[2]}]")
    return faults


# --- figures ---


def draw(path: Path, data: Any, drawn: Callable[[Any], Figure]) -> None:
    """Draw `data`, which is JSON-able, as a PNG, unless the file shows just these data.

    The digest of the data stands in the PNG. So a figure drawn elsewhere, with other fonts, stays as it is; delete it
    to draw it anew.
    """
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    if path.exists():
        with Image.open(path) as image:
            if image.info.get(DATA) == digest:
                return
    content = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        FigureCanvasAgg(drawn(data)).print_figure(
            content, format="png", dpi=150, metadata={DATA: digest, "Software": None}
        )
    atomic_write(path, content.getvalue())


def dots(panels: Mapping[str, Mapping[str, Sequence[float]]], width: float = 3.4, zero: bool = False) -> Figure:
    """A panel per quantity, a line per condition: each seed's value, their mean and its 95 % interval.

    zero: draw a line at 0, for differences.
    """
    names = list(next(iter(panels.values())))
    figure = Figure(figsize=(1.8 + width * len(panels), 0.7 + 0.26 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, groups) in zip(axes, panels.items(), strict=True):
        for place, name in enumerate(reversed(names)):
            values = groups[name]
            if not len(values):
                continue
            found = mean_interval(values)
            axis.plot(values, [place] * len(values), "o", color=MUTED, markersize=3, alpha=0.6, linewidth=0)
            if found.low is not None:
                axis.plot([found.low, found.high], [place, place], color=BLUE, linewidth=1.6)
            axis.plot(found.mean, place, "o", color=BLUE, markersize=5)
        if zero:
            axis.axvline(0, color=MUTED, linewidth=0.8)
        axis.set_yticks(range(len(names)), list(reversed(names)))
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_title(title)
        axis.grid(axis="x")
    return figure
