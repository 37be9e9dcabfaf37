"""What trainers print to the console, among progress bars, warnings and other output.

Six shapes, of which the first that gives a few rows is read:

    {'loss': 0.01, 'reward': '0.5'}                TRL, ms-swift, OpenRLHF, slime, miles, SkyRL, ROLL, LLaMA-Factory
    step:12 - actor/entropy:0.41 - ...             verl
    ╭ Metrics ╮, then │ policy  entropy_avg: .4 │  open-instruct
    Step 12 | Loss 0.01 | Entropy: 0.41            prime-rl, torchtune, DeepSpeed-Chat, mlx-lm, and scripts
    == Step 12/400 ==, then a pair per line        NeMo RL, EasyR1, tables of AReaL, rllm, tinker and Stable-Baselines
    12/400 [00:12<03:10, reward=0.5]               progress bars of OpenRLHF, NeMo-Aligner and of scripts
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

from entrostat.diagnosis.columns import recognise
from entrostat.diagnosis.reading.kinds import as_evaluation
from entrostat.diagnosis.reading.levels import with_full_names
from entrostat.diagnosis.reading.literals import dictionaries
from entrostat.diagnosis.reading.log import RawLog
from entrostat.diagnosis.reading.steps import BAR, Bars, is_step_name
from entrostat.diagnosis.reading.text import console_lines

Rows = list[dict[str, Any]]

ENOUGH = 3  # rows of one shape by which it is the log's
VERL_TOTAL = re.compile(r"total[ _]training[ _]steps\W{1,4}(\d{1,9})", re.IGNORECASE)
TENSOR = re.compile(r"\s*(.+?)(:)((?:torch\.)?tensor\(.*\))\s*")  # its device has a colon of its own
VERL_LINE = re.compile(r"(?:^|[\s)\]>])step:(\d+) - (.+)$")
SETTINGS = frozenset({"learning_rate", "step_time", "throughput", "clip"})
NEAR = 30  # lines after a step's own that may be of it
KIND = re.compile(r"^\s{1,2}(?P<kind>[A-Za-z]\w*)\s{2,}(?P<rest>\S.*)$")  # in a panel

NUMBER = (
    r"[-+]?(?:0,\d+(?!,?\d)|\d+(?:,\d{3})*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?%?|[-+]?(?:nan|inf)\b"
    r"|np\.\w+\([^()]{0,40}\)"
)
STEP = re.compile(
    r"\b(?P<what>global[ _]?step|train(?:ing)?[ _]?step|optim(?:izer)?[ _]?step|step|rollout|perf|passrate"
    r"|eval(?:uation)?|iter(?:ation)?|update|batch|episode)s?\b(?: step| at step)?\s*[:=#]?\s*"
    r"(?P<step>[1-9]\d{0,2}(?:,\d{3})+|\d{1,12})(?:\s*(?:/|of)\s*(?P<total>\d{1,3}(?:,\d{3})+|\d{1,12}))?(?![\d.])",
    re.IGNORECASE,
)
EVALUATES = re.compile(r"\b(eval|evaluat\w*|val|validation)\b", re.IGNORECASE)
PAIR = re.compile(rf"(?P<name>[A-Za-z][\w./@ +-]{{0,80}}?)\s*(?:[:=]|->)\s*(?P<cell>{NUMBER})(?![\w.])", re.IGNORECASE)
INDEX = re.compile(r"\[\s*(?P<step>\d{1,9})\s*(?:/\s*(?P<total>\d{1,9})\s*\]|\](?=\s*[A-Za-z][\w./]*=))")
START = re.compile(r"^\s*(?P<step>\d{1,9})/(?P<total>\d{1,9})\s+[-|:]\s")  # Keras
SPACED = re.compile(rf"(?:^|\s)(?P<name>[A-Za-z][\w./@-]{{1,60}})\s+(?P<cell>{NUMBER})(?=[\s,;|]|$)", re.IGNORECASE)
PIPED = re.compile(rf"^\s*(?P<name>[A-Za-z][\w./@ +-]{{0,80}}?)\s*[:=]?\s*(?P<cell>{NUMBER})(?![\w.])", re.IGNORECASE)
NAME = re.compile(r"\s*[A-Za-z][\w./@ +-]{0,80}")
FLOAT = re.compile(r"\s*[-+]?\d+\.\d+(?:e[-+]?\d+)?\s*")
BULLET = re.compile(rf"^[\s•*\-│|]*(?P<name>[A-Za-z][\w./@ +()-]{{0,80}}?)\s*[:=]\s*(?P<cell>{NUMBER})", re.IGNORECASE)
COLUMNS = re.compile(
    rf"^\s*(?P<name>[A-Za-z][\w./@+-]{{0,80}}?)(?:\s{{2,}}|\s?[.·]{{3,}}\s?)(?P<cell>{NUMBER})\s*$", re.IGNORECASE
)
HEADING = re.compile(r"^\W*(?:.*\W)?(?:step|iteration|update)\W", re.IGNORECASE)
CELLS = re.compile(r"[│┃|]")
RULE = re.compile(r"^[\s│┃|+=~─━┄═╌╒╕╞╡╘╛├┤┌┐└┘┏┓┗┛┡┩╇┳┻╪╤╧┼┬┴╔╗╚╝╠╣╦╩╬:-]*$")
ROLLOUTS = frozenset({"rollout", "perf", "passrate", "eval", "evaluation"})  # slime counts these by rollouts
SECTION = re.compile(r"\b(training|validation|evaluation|eval|timing)\b.*:\s*$", re.IGNORECASE)


def parse(text: str, notes: tuple[str, ...] = (), wanted: frozenset[str] = frozenset()) -> RawLog | None:
    """The rows of the first shape that gives at least ENOUGH, else of the one that gives the most.

    None if the text has not one row with a known or wanted column.
    """
    lines = console_lines(text)
    best: RawLog | None = None
    for name, read in SHAPES.items():
        rows, end, said = read(lines, wanted)
        if rows and (best is None or len(rows) > len(best.rows)):
            best = RawLog(name, rows, end, (*notes, *said))
        if len(rows) >= ENOUGH:
            break
    return best


def _known(row: dict[str, Any], wanted: frozenset[str]) -> bool:
    """Whether a row holds a quantity besides the learning rate and times, which settings and bars have as well."""
    return not wanted.isdisjoint(row) or _any_known(tuple(row))


@lru_cache(maxsize=1024)
def _any_known(names: tuple[str, ...]) -> bool:
    return not _quantities(names) <= SETTINGS


@lru_cache(maxsize=1024)
def _quantities(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(match.quantity for name in names if (match := recognise(name)))


def _verl(lines: list[str], wanted: frozenset[str]) -> tuple[Rows, int | None, tuple[str, ...]]:
    rows, end, notes = _verl_rows(lines)
    return [row for row in rows if _known(row, wanted)], end, notes


def _verl_rows(lines: list[str]) -> tuple[list[dict[str, Any]], int | None, tuple[str, ...]]:
    """The rows among other output, the last step if it is announced, and a note on torn entries."""
    found: list[dict[str, Any]] = []
    torn, end = 0, None
    for line in lines:
        match = VERL_LINE.search(line) if "step:" in line else None
        if not match:
            if not found and (total := VERL_TOTAL.search(line)):
                end = int(total[1]) or None
            continue
        row: dict[str, Any] = {"step": match[1]}
        for part in match[2].split(" - "):
            tensor = TENSOR.fullmatch(part) if "tensor(" in part else None
            name, colon, value = tensor.groups() if tensor else part.strip().rpartition(":")
            if colon and name:
                row[name] = value
            else:
                torn += 1
        found.append(row)
    notes = (f"{torn} entr{'y' if torn == 1 else 'ies'} without a name or a value left out",) if torn else ()
    return found, end, notes


def _dictionaries(lines: list[str], wanted: frozenset[str]) -> tuple[Rows, int | None, tuple[str, ...]]:
    rows: Rows = []
    bars = Bars()
    seen = 0
    for index, before, cells in dictionaries(lines):
        bars.read(lines[seen : index + 1], before)
        row: dict[str, Any] = dict(cells)
        above = lines[index - 1].rstrip() if index > seen else ""
        told = before if before.strip() else above if above.endswith(":") else ""
        seen = index + 1
        kind = _stamp(row, told)
        row = as_evaluation(row) if kind or EVALUATES.search(told) else row
        if _known(row, wanted):
            bars.mark(row)
            rows.append(row)
    bars.read(lines[seen:])
    rows = _without_settings(rows)
    _one_clock(rows)
    if any(_has_step(row) for row in rows):
        return rows, bars.total, ()
    once = _each_once(rows)
    notes = bars.number(once)
    if len(once) < len(rows):
        notes = (*notes, f"rows are printed {round(len(rows) / len(once))} times, as by every rank: each is read once")
    return once, bars.total, notes


def _each_once(rows: Rows) -> Rows:
    """The first of each group of equal rows, if all groups are as large, as where every rank prints; else all rows."""
    groups = [list(same) for _, same in groupby(rows)]
    times = Counter(map(len, groups[:-1])).most_common(1)[0][0] if len(groups) >= ENOUGH else 1
    if times == 1 or any(len(same) != times for same in groups[:-1]) or len(groups[-1]) > times:
        return rows
    return [same[0] for same in groups]


def _has_step(row: dict[str, Any]) -> bool:
    return _any_step(tuple(row))


@lru_cache(maxsize=1024)
def _any_step(names: tuple[str, ...]) -> bool:
    return any(is_step_name(name) for name in names)


def _stamp(row: dict[str, Any], told: str) -> bool:
    """Give a row the step that stands before it; returns whether that calls it an evaluation."""
    steps = list(STEP.finditer(told[-300:]))
    if not steps:
        return False
    found = steps[-1]  # the nearest to the row
    what = found["what"].lower()
    row["rollout_id" if what in ROLLOUTS else "step"] = found["step"]
    if found["total"]:
        row["total_steps"] = found["total"]
    return what.startswith("eval")


def _one_clock(rows: Rows) -> None:
    """Where rollouts and steps are counted apart, as by slime, with several steps per rollout: count all in steps."""
    rollouts = [int(row["rollout_id"]) for row in rows if "rollout_id" in row]
    steps = [int(row["step"]) for row in rows if str(row.get("step", "")).isdecimal() and "rollout_id" not in row]
    per_rollout = max(round((max(steps) + 1) / (max(rollouts) + 1)), 1) if rollouts and steps else 1
    for row in rows:
        if "rollout_id" in row:
            row["step"] = int(row.pop("rollout_id")) * per_rollout


def _without_settings(rows: Rows) -> Rows:
    """Rows without those that come once, have no step, and look like none of the others: printed settings."""
    shapes = Counter(frozenset(row) for row in rows)
    if not shapes or max(shapes.values()) < 3:
        return rows
    return [row for row in rows if shapes[frozenset(row)] > 1 or _has_step(row) or _shares_a_shape(row, shapes)]


def _shares_a_shape(row: dict[str, Any], shapes: Counter[frozenset[str]]) -> bool:
    names = frozenset(row)
    usual = max(shapes, key=lambda shape: shapes[shape])
    held_out = any((match := recognise(name)) and match.quantity == "heldout" for name in names)
    return held_out or len(names & usual) >= 0.5 * len(usual)


def _panels(lines: list[str], wanted: frozenset[str]) -> tuple[Rows, int | None, tuple[str, ...]]:
    """Panels with a kind of metric at the start of a line, then `name: number | name: number`, wrapped if need be."""
    rows: Rows = []
    kinds: dict[str, str] | None = None
    for line in lines:
        text = line.strip()
        if text.startswith("╭"):
            kinds = {}
        elif kinds is not None and text.startswith("│"):
            inner = text.strip("│")
            if found := KIND.match(inner):
                kinds[found["kind"]] = found["rest"]
            elif kinds and inner.startswith("   "):
                kinds[next(reversed(kinds))] += f" {inner.strip()}"
        elif kinds is not None:
            row: dict[str, Any] = {
                name if kind == "other" else f"{kind}/{name}": cell
                for kind, rest in kinds.items()
                for name, cell in filter(None, map(_piped, rest.split("|")))
            }
            if len(kinds) > 1 and _known(row, wanted):
                rows.append(row)
            kinds = None
    return rows, None, ()


def _pairs(lines: list[str], wanted: frozenset[str]) -> tuple[Rows, int | None, tuple[str, ...]]:
    """Lines with a step, `[12/400]`, or `[12]`, and a quantity: `name: number`, `name=number`, `name number`.

    Where none of them has a quantity but a loss, as of DeepSpeed-Chat, the lines between them are read as well.
    """
    rows: Rows = []
    between: list[tuple[int, int]] = []  # lines after each row's own, up to the next
    for index, line in enumerate(lines):
        step = STEP.search(line) or INDEX.search(line) or START.match(line)
        if step is None:
            continue
        row: dict[str, Any] = {}
        for name, cell in _line_pairs(line[step.end() :]) or _line_pairs(line[: step.start()]):
            if not (_counts(name) and STEP.fullmatch(f"{name} {cell}")):
                row.setdefault(name, cell)
        if EVALUATES.search(line[: step.end()]):
            row = as_evaluation(row)
        if _known(row, wanted):
            rows.append({"step": step["step"], **({"total_steps": step["total"]} if step["total"] else {}), **row})
            between.append((index + 1, min(index + 1 + NEAR, len(lines))))
    if len(rows) >= ENOUGH and not any(_quantities(tuple(row)) - SETTINGS - {"loss"} for row in rows):
        _add_lines_between(rows, [lines[first:last] for first, last in between], wanted)
    return rows, None, ()


def _add_lines_between(rows: Rows, between: list[list[str]], wanted: frozenset[str]) -> None:
    """Give rows the known pairs of the lines below them, if at least half of the rows have the like."""
    found: list[dict[str, Any]] = []
    for lines in between:
        own: dict[str, Any] = {}
        for line in lines:
            if STEP.search(line):
                break
            pairs = dict(_line_pairs(line))
            own |= {name: cell for name, cell in pairs.items() if name not in own} if _known(pairs, wanted) else {}
        found.append(own)
    counts = Counter(name for own in found for name in own)
    for row, own in zip(rows, found, strict=True):
        row.update({name: cell for name, cell in own.items() if 2 * counts[name] >= len(rows) and name not in row})


@lru_cache(maxsize=4096)
def _counts(name: str) -> bool:
    """Whether a name with a whole number behind it is a step."""
    return STEP.fullmatch(f"{name} 1") is not None


def _line_pairs(rest: str) -> list[tuple[str, str]]:
    """The pairs of name and number after a line's step."""
    if rest.count("|") >= 2:
        return [pair for part in rest.split("|") if (pair := _piped(part))]
    if rest.count(", ") >= 2:
        parts = [_piped(part.lstrip(" :|-")) for part in rest.split(", ")]
        if all(parts):
            return [pair for pair in parts if pair]
    return [(pair["name"].strip(), pair["cell"]) for pair in (list(PAIR.finditer(rest)) or list(SPACED.finditer(rest)))]


def _piped(part: str) -> tuple[str, str] | None:
    """The name and the number between two bars; plain ones are told without the slower expression."""
    name, mark, cell = part.partition(":")
    if mark and FLOAT.fullmatch(cell) and _is_plain(name):
        return name.strip(), cell.strip()
    pair = PIPED.match(part)
    return (pair["name"].strip(), pair["cell"]) if pair else None


@lru_cache(maxsize=4096)
def _is_plain(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _blocks(lines: list[str], wanted: frozenset[str]) -> tuple[Rows, int | None, tuple[str, ...]]:
    """Headings with a step, and below them a pair per line, or a table of names and numbers."""
    rows: Rows = []
    row: dict[str, Any] = {}
    evaluates = timed = False
    for line in with_full_names(lines):
        if RULE.match(line):
            continue
        pairs = list(_block_pairs(line))
        steps = list(STEP.finditer(line)) if not pairs else []
        if steps and HEADING.search(line):
            step = steps[-1]
            if step["step"] != row.get("step"):
                rows.append(row)
                row = {"step": step["step"], **({"total_steps": step["total"]} if step["total"] else {})}
            evaluates = timed = False
        elif section := SECTION.search(line):
            word = section[1].lower()
            timed = word == "timing"
            evaluates = not timed and word != "training"
        elif not timed:
            own = as_evaluation(dict(pairs)) if evaluates else dict(pairs)
            if row.keys() & own.keys() and ("step" not in row or own.get("step", row["step"]) != row["step"]):
                rows.append(row)
                row = {}
            row.update(own)
    return [each for each in [*rows, row] if _known(each, wanted)], None, ()


def _block_pairs(line: str) -> Iterator[tuple[str, str]]:
    """`• name: number`, or `│ name │ number │ name │ number │`."""
    if len(cells := CELLS.split(line)) >= 4 or (len(cells) == 3 and not cells[0].strip()):
        inner = [cell.strip() for cell in cells if cell.strip()]
        for name, cell in zip(inner[::2], inner[1::2], strict=False):
            if re.fullmatch(NUMBER, cell, re.IGNORECASE) and name[:1].isalpha():
                yield name, cell
        if len(inner) == 1 and (found := BULLET.match(inner[0])):
            yield found["name"], found["cell"]
    elif found := BULLET.match(line) or COLUMNS.match(line):
        yield found["name"], found["cell"]


def _postfixes(lines: list[str], wanted: frozenset[str]) -> tuple[Rows, int | None, tuple[str, ...]]:
    """Progress bars with pairs at their end: of each bar's state the last; of many short bars each one's end."""
    states: list[tuple[int, int, dict[str, Any]]] = []
    for line in lines:
        bar = BAR.search(line) if "/" in line and "=" in line else None
        if bar is None:
            continue
        row = {pair["name"].strip(): pair["cell"] for pair in PAIR.finditer(line[bar.end() :])}
        if _known(row, wanted):
            states.append((int(bar[1]), int(bar[2]), row))
    done = [state for state, _, _ in states]
    if len({total for _, total, _ in states}) == 1 and done == sorted(done) and done[0] < done[-1]:
        return list({state: {"step": state, **row} for state, _, row in states}.values()), states[0][1], ()
    return [row for state, total, row in states if state == total], None, ()


SHAPES = {
    "verl console": _verl,
    "console, dictionaries": _dictionaries,
    "console, panels": _panels,
    "console, pairs on a line": _pairs,
    "console, blocks": _blocks,
    "console, progress bars": _postfixes,
}
