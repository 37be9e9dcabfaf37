"""Tables of text with a line of headings: CSV, TSV, Markdown, LaTeX, a notebook's, Weights & Biases' exports."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from entrostat.diagnosis.columns import number, recognise
from entrostat.diagnosis.reading.kinds import kinds_apart
from entrostat.diagnosis.reading.log import RawLog
from entrostat.diagnosis.reading.steps import is_step_name

DELIMITERS = ",;\t|"
EXPORTED = re.compile(r"^.+ - (?P<name>.+?)(?P<bound>__MIN|__MAX)?$")
DECIMAL_COMMA = re.compile(r"\s*([-+]?\d*(?:[. ']\d{3})*),(\d+(?:[eE][-+]?\d+)?)(\s*%?)\s*")  # of most of Europe
DECIMAL_POINT = re.compile(r"\s*[-+]?[\d,]*\.(\d+|\d*[eE][-+]?\d+)\s*%?\s*")
THOUSANDS = re.compile(r"\s*[-+]?[1-9]\d{0,2}(,\d{3})+\s*")
ONE_SCALAR = frozenset({"step", "value"})  # what trackers export of one metric, under a file name that is its name
TIMES = frozenset({"wall time", "timestamp", "time", "relative time", "epoch"})
TAG = re.compile(r"tag-(.+?)(?:\s*\(\d+\))?\.csv$")
RULE = re.compile(r"[\s|:+=─━│┃┼╪-]*")
GAP = re.compile(r"\s{2,}|\t")  # between cells of a table aligned with blanks
LATEX_END = re.compile(r"(?:\[[^\]]*\])?(?:\s*\\[a-z]+(?:\{[^}]*\})?)*\s*(?:%.*)?")  # after the \\ of a row
LATEX_COMMAND = re.compile(
    r"\\(?:textbf|textit|emph|mathbf|text|num|multicolumn\{\d+\}\{[^}]*\})(?=\{)|\\[,;:! ]|\\(?:hline|toprule|midrule)"
)
LATEX_MARKS = re.compile(r"[${}]")
INNER_BLANKS = re.compile(r"\s+/\s+")


def parse(text: str, notes: tuple[str, ...]) -> RawLog | None:
    """The rows under the headings; None if no line of the text is one of headings.

    Rows of another length are read as far as headings and values go together; lines of dashes are none. Of several
    tables in one text, the one with the most rows is read.
    """
    lines = _without_latex(text) if "&" in text and "\\\\" in text else text.splitlines()
    tables = _tables(lines)
    if not tables:
        return None
    first, last, mark = max(tables, key=lambda table: table[1] - table[0])
    if len(tables) > 1:
        notes = (*notes, f"{len(tables)} tables: the one from line {first + 1} on is read, which has the most rows")
    return _read(lines[first:last], mark, notes)


def named_by_file(raw: RawLog, name: str) -> RawLog:
    """A table of one scalar, its column named by the file: `..-tag-NAME.csv` (TensorBoard), `NAME.csv` (Neptune)."""
    columns = {column.lower(): column for column in raw.rows[0]} if raw.rows else {}
    if columns.keys() - TIMES != ONE_SCALAR:
        return raw
    tag = TAG.search(name)
    own = tag[1] if tag else name.partition(".")[0]
    return replace(raw, rows=[{"step": row.get(columns["step"]), own: row.get(columns["value"])} for row in raw.rows])


def begins(text: str) -> bool:
    """Whether a text begins with headings and numbers below them."""
    lines = [line for line in text[:100_000].splitlines() if line.strip() and not RULE.fullmatch(line)][:2]
    mark = _heading_mark(lines[0], lines[1:]) if len(lines) == 2 else None
    cells = _cells(lines[1], mark) if mark else []
    return 2 * sum(_is_number(cell.strip()) or not cell.strip() for cell in cells) > len(cells)


def rows_of(headings: Sequence[str], body: Sequence[Sequence[str]], notes: tuple[str, ...]) -> RawLog:
    """A log of cells under headings; of headings of one name the first is read."""
    if body and all(len(cells) == len(headings) + 1 and cells[0].strip().isdecimal() for cells in body):
        headings = ["", *headings]  # pandas prints the number of a row under no heading
    names = [_plain(name) for name in headings]
    repeated = {name: count for name, count in Counter(names).items() if name and count > 1}
    names = ["" if name in names[:place] else name for place, name in enumerate(names)]
    ragged = sum(len(cells) != len(names) for cells in body)
    if _has_decimal_commas(body):
        body = [[_with_point(cell) for cell in cells] for cells in body]
    rows = [{name: cell for name, cell in zip(names, cells, strict=False) if name} for cells in body]
    notes += tuple(f"column {name} comes {count} times: the first is read" for name, count in repeated.items())
    if ragged:
        are = "row is" if ragged == 1 else "rows are"
        notes = (*notes, f"{ragged} {are} of another length than the headings, read as far as they go")
    return RawLog("table", kinds_apart(rows), notes=notes)


def _without_latex(text: str) -> list[str]:
    """The lines of a text; a row of a LaTeX table with `|` between its cells; commands that stand alone are dropped."""
    lines = []
    for line in text.splitlines():
        cells, mark, end = line.rpartition("\\\\")
        if mark and "&" in cells and LATEX_END.fullmatch(end):
            plain = LATEX_COMMAND.sub("", cells.replace("\\&", "and"))
            lines.append(LATEX_MARKS.sub("", plain.replace("\\_", "_").replace("\\%", "%")).replace("&", "|"))
        elif not line.lstrip().startswith("\\"):
            lines.append(line)
    return lines


def _tables(lines: list[str]) -> list[tuple[int, int, str]]:
    """(line of the headings, line after the last row, delimiter) of each table."""
    found = []
    place = 0
    while place < len(lines):
        mark = _heading_mark(lines[place], lines[place + 1 : place + 4])
        if mark is None:
            place += 1
            continue
        last = place + 1
        while last < len(lines) and (not lines[last].strip() or _belongs(lines[last], mark)):
            last += 1
        found.append((place, last, mark))
        place = last
    return found


def _heading_mark(line: str, following: Sequence[str]) -> str | None:
    """The delimiter of a line of headings: several names, not one number; one is known, or numbers stand below."""
    if not line.strip() or RULE.fullmatch(line):
        return None
    marks = [mark for mark in DELIMITERS if mark in line] + (["  "] if GAP.search(line.strip()) else [])
    marks = marks or ([" "] if _are_columns(line, following) else [])
    below = next((line for line in following if line.strip() and not RULE.fullmatch(line)), "")
    for mark in sorted(marks, key=lambda mark: -len(_cells(line, mark))):
        names = [_plain(cell) for cell in _cells(line, mark)]
        names = [name for name in names if name]
        if len(names) < 2 or any(_is_number(name) or len(name) > 120 for name in names):
            continue
        cells = _cells(below, mark)
        numbers = len(cells) >= len(names) and 2 * sum(_is_number(cell.strip()) for cell in cells) >= len(cells)
        if numbers or any(is_step_name(name) or recognise(name) for name in names):
            return mark
    return None


def _are_columns(line: str, following: Sequence[str]) -> bool:
    """Whether single blanks part the names of a line, one of them known, and as many numbers on each of the next."""
    names = line.split()
    rows = [below.split() for below in following if below.strip()]
    return (
        any(is_step_name(name) or recognise(name) for name in names)
        and len(rows) > 1
        and all(len(cells) == len(names) and all(map(_is_number, cells)) for cells in rows)
    )


def _belongs(line: str, mark: str) -> bool:
    if mark == "  ":
        return bool(GAP.search(line.strip())) or RULE.fullmatch(line) is not None
    return mark in line or (mark == "|" and RULE.fullmatch(line) is not None)


def _cells(line: str, mark: str) -> list[str]:
    if mark == " ":
        return line.split()
    if mark == "  ":
        return GAP.split(INNER_BLANKS.sub("/", line.strip()))
    if mark == "|":
        return line.strip().strip("|").split("|")
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _read(lines: list[str], mark: str, notes: tuple[str, ...]) -> RawLog:
    headings = _cells(lines[0], mark)
    if mark == "|" or not mark.strip(" "):
        body = [_cells(line, mark) for line in lines[1:] if line.strip() and not RULE.fullmatch(line)]
        return rows_of(headings, body, notes)
    reader = csv.reader(io.StringIO("\n".join(lines[1:])), delimiter=mark)
    body = []
    try:
        body.extend(cells for cells in reader if cells)
    except csv.Error as error:
        notes = (*notes, f"line {reader.line_num + 1}: {error}; read up to there")
    return rows_of(headings, body, notes)


def _has_decimal_commas(body: Sequence[Sequence[str]]) -> bool:
    """Whether commas part the decimals of a table: of one number they can do nothing else, and none has a point."""
    commas = points = 0
    for cells in body:
        for cell in cells:
            if "," in cell and DECIMAL_COMMA.fullmatch(cell):
                commas += not THOUSANDS.fullmatch(cell)
            elif "." in cell and DECIMAL_POINT.fullmatch(cell):
                points += 1
        if points > 20:
            return False
    return commas > 0 and not points


def _with_point(cell: str) -> str:
    found = DECIMAL_COMMA.fullmatch(cell)
    return re.sub(r"[. ']", "", found[1]) + f".{found[2]}{found[3]}" if found else cell


def _is_number(cell: str) -> bool:
    try:
        return number(cell) is not None
    except ValueError:
        return False


def _plain(heading: str) -> str:
    """`Step` as `step`; `run name - train/reward` as `train/reward`; empty for an exported minimum or maximum."""
    heading = heading.strip()
    exported = EXPORTED.match(heading)
    if exported:
        return "" if exported["bound"] else exported["name"]
    return heading.lower() if heading.lower() in ("step", "global_step") else heading
