"""JSON lines: of verl's file logger, of our steps.jsonl, of anything that writes a row a line."""

from __future__ import annotations

import json
from typing import Any

from entrostat.diagnose.reading.log import RawLog, flatten


def parse(text: str, notes: tuple[str, ...]) -> RawLog:
    """The rows of JSON lines. Lines that are no JSON object are counted and left out, as is a torn last one."""
    rows, bad = [], []
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = json_object(line)
        if row is None:
            bad.append(number)
        else:
            rows.append(flatten(row))
    if bad == [len(lines)]:
        notes = (*notes, "the last line is torn and left out")
    elif bad:
        notes = (*notes, f"{len(bad)} lines are no JSON object and left out, the first is line {bad[0]}")
    return RawLog("JSON lines", rows, notes=notes)


def json_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for anything else; Python's NaN and Infinity are allowed."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
