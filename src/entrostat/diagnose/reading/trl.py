"""`trainer_state.json` of Hugging Face's Trainer, and so of TRL: `log_history`, a row a log call."""

from __future__ import annotations

import json
import re
from typing import Any

from entrostat.diagnose.reading.log import RawLog, flatten

HISTORY = re.compile(r'"log_history"\s*:\s*\[')
MAX_STEPS = re.compile(r'"max_steps"\s*:\s*(\d{1,15})')


def looks_like(text: str) -> bool:
    """Whether the text is a trainer state, whole or cut off."""
    return HISTORY.search(text) is not None


def parse(text: str, notes: tuple[str, ...]) -> RawLog:
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
    return RawLog("JSON list", rows, notes=notes if whole else (*notes, f"cut off or damaged after {len(rows)} rows"))


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
