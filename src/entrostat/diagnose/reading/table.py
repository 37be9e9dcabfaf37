"""Tables of text with a line of headings: CSV, and what Weights & Biases exports as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter

from entrostat.diagnose.reading.log import RawLog

DELIMITERS = ",;\t|"
EXPORTED = re.compile(r"^.+ - (?P<name>.+?)(?P<bound>__MIN|__MAX)?$")


def looks_like(text: str) -> bool:
    """Whether the first line is a row of headings."""
    heading = next((line for line in text.splitlines() if line.strip()), "")
    return any(mark in heading for mark in DELIMITERS)


def parse(text: str, notes: tuple[str, ...]) -> RawLog:
    """The rows under the headings. Rows of another length are read as far as headings and values go together."""
    lines = text.splitlines()
    heading = next((index for index, line in enumerate(lines) if line.strip()), 0)
    body = "\n".join(lines[heading:])
    mark = max(DELIMITERS, key=lines[heading].count)
    reader = csv.reader(io.StringIO(body), delimiter=mark)
    rows, ragged, repeated = [], 0, dict[str, int]()
    try:
        names = [_plain(name) for name in next(reader)]
        repeated = {name: count for name, count in Counter(names).items() if name and count > 1}
        names = ["" if name in names[:place] else name for place, name in enumerate(names)]
        for values in reader:
            if values:
                ragged += len(values) != len(names)
                rows.append({name: value for name, value in zip(names, values, strict=False) if name})
    except csv.Error as error:
        notes = (*notes, f"line {reader.line_num}: {error}; read up to there")
    notes += tuple(f"column {name} comes {count} times: the first is read" for name, count in repeated.items())
    if ragged:
        notes = (*notes, f"{ragged} rows of another length than the headings, read as far as they go")
    return RawLog("table", rows, notes=notes)


def _plain(heading: str) -> str:
    """`Step` as `step`; `run name - train/reward` as `train/reward`; empty for an exported minimum or maximum."""
    heading = heading.strip()
    exported = EXPORTED.match(heading)
    if exported:
        return "" if exported["bound"] else exported["name"]
    return heading.lower() if heading.lower() in ("step", "global_step") else heading
