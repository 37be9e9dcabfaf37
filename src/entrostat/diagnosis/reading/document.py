"""JSON: a row per line, Trainer's `trainer_state.json`, a list of rows, or rows or columns somewhere inside."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from entrostat.diagnosis.reading.kinds import kinds_apart
from entrostat.diagnosis.reading.log import RawLog, flatten
from entrostat.diagnosis.reading.steps import is_step_name

fast_loads: Callable[[str], Any] | None = None
with suppress(ImportError):  # a fifth of json's time
    fast_loads = importlib.import_module("orjson").loads

HISTORY = re.compile(r'"log_history"\s*:\s*\[')
MAX_STEPS = re.compile(r'"max_steps"\s*:\s*(\d{1,15})')
GLOBAL_STEP = re.compile(r'"global_step"\s*:\s*(\d{1,15})')
DEPTH = 4  # how deep rows are looked for


def is_trainer_state(text: str) -> bool:
    """Whether the text is a state of Hugging Face's Trainer, and so of TRL, whole or cut off."""
    return HISTORY.search(text) is not None


def global_step(text: str) -> int:
    """How far a trainer state has come; -1 if it does not say."""
    found = GLOBAL_STEP.search(text)
    return int(found[1]) if found else -1


def parse_trainer_state(text: str, notes: tuple[str, ...]) -> RawLog:
    """The rows of the history, up to where the file is cut off or damaged."""
    start = HISTORY.search(text)
    rows, whole = _rows(text, start.end()) if start else ([], False)
    if not whole:
        notes = (*notes, f"the file is cut off or damaged after {len(rows)} rows")
    end = MAX_STEPS.search(text)
    return RawLog("TRL trainer_state.json", rows, int(end[1]) if end and int(end[1]) > 0 else None, notes)


def parse_list(text: str, notes: tuple[str, ...]) -> RawLog:
    """The rows of a JSON list of objects, up to where it is cut off or damaged."""
    rows, whole = _rows(text, text.index("[") + 1)
    rows = rows or next((own for _, own in _tables(_loaded(text), "", 1)), [])
    notes = notes if whole else (*notes, f"cut off or damaged after {len(rows)} rows")
    return RawLog("JSON list", kinds_apart(rows), notes=notes)


def parse_document(text: str, notes: tuple[str, ...]) -> RawLog | None:
    """The longest list of rows, or set of columns, in a JSON object; None for another text."""
    value = _loaded(text)
    if not isinstance(value, dict):
        return None
    tables = list(_tables(value, "", DEPTH))
    found = max(tables, key=lambda table: len(table[1]), default=None)
    if found is None or len(found[1]) < 2:
        return None
    where, rows = found
    if where:
        notes = (*notes, f"the rows stand under {where}{_and_others(where, rows, tables)}")
    return RawLog("JSON", kinds_apart(rows), notes=notes)


def _and_others(where: str, rows: list[dict[str, Any]], tables: list[tuple[str, list[dict[str, Any]]]]) -> str:
    """Which other tables of the same columns a document has: other runs, probably."""
    names = set(rows[0])
    others = [name for name, own in tables if name and name != where and own and len(names & set(own[0])) > 1]
    shown = ", ".join(dict.fromkeys(others))
    return f", the longest table; of the same columns, and not read: {shown}" if shown else ""


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _under(headings: Any, body: Any) -> Iterator[dict[str, Any]]:
    """The rows of a list of headings and a list of lists as long; none for anything else."""
    if isinstance(headings, list) and len(headings) > 1 and all(isinstance(name, str) for name in headings):
        for cells in body if isinstance(body, list) else ():
            if isinstance(cells, list) and len(cells) == len(headings):
                yield dict(zip(headings, cells, strict=True))


def _tables(value: Any, where: str, depth: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(path, rows) of every list of objects, of every object of equally long lists, and of every object by steps.

    So also of headings with lists of cells below them, and of `columns` with `data` (pandas).
    """
    if not depth:
        return
    if isinstance(value, list):
        rows = [flatten(row) for row in value if isinstance(row, dict)] or list(
            _under(value[:1] and value[0], value[1:])
        )
        if rows:
            yield where, rows
    elif isinstance(value, dict):
        columns = {str(name): own for name, own in value.items() if isinstance(own, list) and _plain(own)}
        lengths = {len(own) for own in columns.values()}
        if len(columns) > 1 and len(lengths) == 1:
            yield where, [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        yield where, list(_under(value.get("columns"), value.get("data")))
        yield where, _series(value)
        by_step = {str(name): own for name, own in value.items() if str(name).isdecimal() and isinstance(own, dict)}
        if len(by_step) > 1 and len(by_step) == len(value):
            yield where, [{"step": step, **flatten(own)} for step, own in by_step.items()]
        for name, own in value.items():
            yield from _tables(own, f"{where}.{name}" if where else str(name), depth - 1)


def _series(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an object that gives for each name its values by step: `[[1, .5], ...]`, or `{"1": .5, ...}`.

    So do exports of trackers, and pandas' `to_json`, whose steps are row numbers.
    """
    rows: dict[int, dict[str, Any]] = {}
    for name, own in value.items():
        for step, cell in own.items() if isinstance(own, dict) else _points(own):
            if isinstance(cell, dict | list) or not str(step).isdecimal():
                return []  # something else in between: this is no set of series
            rows.setdefault(int(step), {})[str(name)] = cell
    numbered = any(is_step_name(str(name)) for name in value)
    return [row if numbered else {"step": step, **row} for step, row in sorted(rows.items())]


def _points(own: Any) -> list[tuple[Any, Any]]:
    """The points of a list of [step, value], or of objects with `step` and `value`."""
    points = own if isinstance(own, list) else []
    if all(isinstance(point, list) and len(point) == 2 for point in points):
        return [(step, cell) for step, cell in points]
    if all(isinstance(point, dict) and {"step", "value"} <= point.keys() for point in points):
        return [(point["step"], point["value"]) for point in points]
    return []


def _plain(cells: list[Any]) -> bool:
    return bool(cells) and not isinstance(cells[0], dict | list)


def _rows(text: str, place: int) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a JSON list whose first element is at `place`, and whether the list ends as it should."""
    decoder = json.JSONDecoder()
    rows: list[dict[str, Any]] = []
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        if place >= len(text) or text[place] == "]":
            return rows, place < len(text)
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return rows, False
        if isinstance(value, dict):
            rows.append(flatten(value))


def parse_lines(text: str, notes: tuple[str, ...]) -> RawLog | None:
    """The rows of JSON lines; None if not one line is a JSON object.

    Lines that are none are counted and left out, as is a torn last one. Rows of several kinds, told by a column such as
    `type`, keep their columns apart.
    """
    rows, bad = [], []
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = json_object(line)
        if row is None:
            bad.append(number)
        else:
            rows.append(flatten(row))
    if not rows:
        return None
    if bad == [len(lines)]:
        notes = (*notes, "the last line is torn and left out")
    elif bad:
        lines_are = "line is" if len(bad) == 1 else "lines are"
        notes = (*notes, f"{len(bad)} {lines_are} no JSON object and left out, the first is line {bad[0]}")
    return RawLog("JSON lines", kinds_apart(rows), notes=notes)


def wrapped(raw: RawLog) -> str | None:
    """The console's text in the rows of a container's log, as `{"log": "...", "stream": ...}`; None for other rows."""
    for name in ("log", "message", "msg", "textPayload"):
        lines = [row.get(name) for row in raw.rows]
        texts = [line for line in lines if isinstance(line, str)]
        if texts and 2 * len(texts) > len(lines):
            return "\n".join(text.rstrip("\n") for text in texts)
    return None


def json_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for anything else; Python's NaN and Infinity are allowed, which orjson refuses."""
    if fast_loads is not None:
        with suppress(ValueError):
            value = fast_loads(text)
            return value if isinstance(value, dict) else None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
