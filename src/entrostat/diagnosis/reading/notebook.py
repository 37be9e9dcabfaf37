"""Notebooks (.ipynb) and saved pages: the tables and the text that their cells have put out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape

from entrostat.diagnosis.columns import recognise
from entrostat.diagnosis.reading import console, table
from entrostat.diagnosis.reading.log import RawLog

TAG = re.compile(r"<(?P<end>/?)(?P<name>table|tr|td|th)\b[^<>]{0,500}>", re.IGNORECASE)
INNER = re.compile(r"<[^<>]{0,500}>")
ANY_TRAINING = frozenset({"loss", "learning_rate", "step_time", "throughput", "grad_norm"})
PROGRESS = re.compile(r"\[\s*\d+/(\d+)")


def is_notebook(text: str) -> bool:
    """Whether the text is a notebook, whole or cut off."""
    return '"cells"' in text and '"cell_type"' in text and text.lstrip()[:1] == "{"


def is_page(text: str) -> bool:
    """Whether the text is HTML with a table."""
    return "<table" in text.lower()


def parse(text: str, notes: tuple[str, ...]) -> RawLog | None:
    """The output of a notebook that holds the most quantities and rows; None if the notebook is damaged or has none."""
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    found = [(number, raw) for number, cell in enumerate(_list(cells), 1) for raw in _outputs(cell)]
    found = [(number, raw) for number, raw in found if _worth(raw)]
    if not found:
        return None
    number, raw = max(found, key=lambda each: _worth(each[1]))
    if len(found) > 1:
        notes = (*notes, f"{len(found)} outputs hold numbers of a run: that of cell {number} is read")
    return RawLog(f"notebook, {raw.format}", raw.rows, raw.end, (*notes, *raw.notes))


def parse_page(text: str, notes: tuple[str, ...]) -> RawLog | None:
    """The table of an HTML text that holds the most quantities and rows; None for none."""
    logs = [table.rows_of(rows[0], rows[1:], ()) for rows in _tables(text) if len(rows) > 1]
    best = max(logs, key=_worth, default=None)
    if best is None or not _worth(best):
        return None
    total = PROGRESS.search(text)
    return RawLog("table", best.rows, int(total[1]) if total else None, (*notes, *best.notes))


def _outputs(cell: object) -> Iterator[RawLog]:
    """What can be read of a cell: what it printed, which a notebook stores in pieces, and each thing it showed."""
    printed = []
    for output in _list(cell.get("outputs")) if isinstance(cell, dict) else ():
        if not isinstance(output, dict):
            continue
        if output.get("output_type") == "stream":
            printed.append(_text(output.get("text")))
            continue
        data = output.get("data")
        data = data if isinstance(data, dict) else {}
        html = _text(data.get("text/html"))
        raw = parse_page(html, ()) if is_page(html) else None
        raw = raw or _of_text(_text(data.get("text/plain")))
        if raw is not None:
            yield raw
    raw = _of_text("".join(printed))
    if raw is not None:
        yield raw


def _of_text(text: str) -> RawLog | None:
    return (console.parse(text) or table.parse(text, ())) if text else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else ""


def _worth(raw: RawLog) -> int:
    """Rows times known quantities, of which one that any training has counts a tenth."""
    names = {name for row in raw.rows[:50] for name in row}
    known = {match.quantity for name in names if (match := recognise(name))}
    return len(raw.rows) * (10 * len(known - ANY_TRAINING) + len(known & ANY_TRAINING))


def _tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, row by row. By their tags alone: html.parser takes hours over damaged pages."""
    tables: list[list[list[str]]] = []
    start: int | None = None  # where the text of the open cell begins
    for tag in TAG.finditer(text):
        if start is not None:
            tables[-1][-1].append(unescape(INNER.sub("", text[start : tag.start()])).strip())
            start = None
        if tag["end"]:
            continue
        name = tag["name"].lower()
        if name == "table":
            tables.append([])
        elif name == "tr" and tables:
            tables[-1].append([])
        elif name in ("td", "th") and tables and tables[-1]:
            start = tag.end()
    return tables
