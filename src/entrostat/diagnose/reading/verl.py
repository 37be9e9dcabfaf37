"""verl's console lines: `step:12 - actor/entropy:0.41 - critic/score/mean:np.float64(0.5)`."""

from __future__ import annotations

import re

from entrostat.diagnose.reading.log import RawLog

LINE = re.compile(r"(?:^|[\s)\]>])step:(\d+) - (.+)$")
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def looks_like(text: str) -> bool:
    """Whether one of the lines is verl's."""
    return any(LINE.search(COLOUR.sub("", line)) for line in text.splitlines())


def parse(text: str, notes: tuple[str, ...]) -> RawLog:
    """The rows among whatever else a console shows; Ray's prefix and colours are dropped."""
    rows, torn = [], 0
    for line in text.splitlines():
        found = LINE.search(COLOUR.sub("", line))
        if not found:
            continue
        row: dict[str, str] = {"step": found[1]}
        for part in found[2].split(" - "):
            name, colon, value = part.strip().rpartition(":")
            if colon and name:
                row[name] = value
            else:
                torn += 1
        rows.append(row)
    if torn:
        notes = (*notes, f"{torn} entries without a name or a value left out")
    return RawLog("verl console", rows, notes=notes)
