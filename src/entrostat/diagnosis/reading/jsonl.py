"""JSON lines: of verl's file logger, of our steps.jsonl, of anything that writes a row per line."""

from __future__ import annotations

import json
from typing import Any

from entrostat.diagnosis.reading.kinds import kinds_apart
from entrostat.diagnosis.reading.log import RawLog, flatten


def parse(text: str, notes: tuple[str, ...]) -> RawLog | None:
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
    """A JSON object, or None for anything else; Python's NaN and Infinity are allowed."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
