"""Dictionaries as Python and JSON print them, taken out of a console's text without evaluating anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from entrostat.diagnosis.reading.document import json_object
from entrostat.diagnosis.reading.log import flatten

TOKEN = re.compile(
    r"""(?P<quote>['"])(?P<key>[^'"\\\n]{1,160})(?P=quote)\s*:\s*
    (?: (?P<open>\{)
      | (?P<text>'[^'\n]{0,80}'|"[^"\n]{0,80}")
      | (?P<bare>(?:np|numpy|torch)\.\w+\([^()\n]{0,80}\)
          | tensor\([^()\n]{0,80}\)
          | [-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?
          | [-+]?(?:nan|inf|infinity)\b
          | None\b | null\b ) )?
    | (?P<close>\}) | (?P<start>\{)""",
    re.VERBOSE | re.IGNORECASE,
)
OPENING = re.compile(r"""\{\s*(?:['"]|$)""")
MOST_LINES = 2_000  # of one dictionary
DEEPEST = 16  # dictionaries within one another; no row is so deep


def dictionaries(lines: list[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(index of its first line, what stands before it on that line, name -> cell) of every dictionary.

    A dictionary ends with its closing brace, MOST_LINES lines later at most; nested ones give dotted names. Cells that
    are longer texts or lists are left out.
    """
    index = 0
    while index < len(lines):
        opening = OPENING.search(lines[index]) if "{" in lines[index] else None
        if opening is None:
            index += 1
            continue
        last = _last_line(lines, index, opening.start())
        body = lines[index][opening.start() :]
        if last > index:
            body = "\n".join([body, *lines[index + 1 : last + 1]])
        before = lines[index][: opening.start()]
        for cells in _split(body):
            yield index, before, cells
            before = ""
        index = last + 1


def _last_line(lines: list[str], first: int, start: int) -> int:
    """Where the braces opened on a line are closed; that line itself if they never are."""
    depth = lines[first].count("{", start) - lines[first].count("}", start)
    last = first
    while depth > 0 and last + 1 < min(len(lines), first + MOST_LINES):
        last += 1
        if OPENING.match(lines[last]):
            return first  # another dictionary begins: this one was cut off
        depth += lines[last].count("{") - lines[last].count("}")
    return last if depth <= 0 else first


def _split(body: str) -> Iterator[dict[str, Any]]:
    """Name -> cell of each outermost dictionary of a text; one that is cut off may end in half a number: left out."""
    if '"' not in body and (plain := json_object(body.replace("'", '"'))) is not None:
        yield flatten(plain)  # the usual case, ten times faster
        return
    cells: dict[str, Any] = {}
    path: list[str] = []
    depth = 0
    for token in TOKEN.finditer(body):
        if depth > DEEPEST:
            return
        if token["close"]:
            depth -= 1
            if path:
                path.pop()
            if depth <= 0 and cells:
                yield cells
                cells, path, depth = {}, [], 0
        elif token["start"]:
            depth += 1
            if depth > 1:
                path.append("")
        elif token["open"]:
            depth += 1
            path.append(token["key"])
        elif token["text"] or token["bare"]:
            name = ".".join([*(part for part in path if part), token["key"]])
            cells[name] = token["text"][1:-1] if token["text"] else token["bare"]
