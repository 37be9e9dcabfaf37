"""verl's console lines: `step:12 - actor/entropy:0.41 - critic/score/mean:np.float64(0.5)`."""

from __future__ import annotations

import re
from typing import Any

TOTAL = re.compile(r"total[ _]training[ _]steps\W{1,4}(\d{1,9})", re.IGNORECASE)
LINE = re.compile(r"(?:^|[\s)\]>])step:(\d+) - (.+)$")


def rows(lines: list[str]) -> tuple[list[dict[str, Any]], int | None, tuple[str, ...]]:
    """The rows among whatever else stands there, the last step if it is announced, and a note on torn entries."""
    found: list[dict[str, Any]] = []
    torn, end = 0, None
    for line in lines:
        match = LINE.search(line) if "step:" in line else None
        if not match:
            if not found and (total := TOTAL.search(line)):
                end = int(total[1]) or None
            continue
        row: dict[str, Any] = {"step": match[1]}
        for part in match[2].split(" - "):
            name, colon, value = part.strip().rpartition(":")
            if colon and name:
                row[name] = value
            else:
                torn += 1
        found.append(row)
    notes = (f"{torn} entr{'y' if torn == 1 else 'ies'} without a name or a value left out",) if torn else ()
    return found, end, notes
