"""Which quantity a column of a log holds, by its name; and a cell of a log as a number.

The names come from `entrostat.runs.metrics`: first the names that hosts are known to use, then rules on the words of a
name. `train/`, `rollout/` and the like before a name are ignored; a column of an evaluation is only ever the held-out
score.

Not included: verl's `actor/pg_clipfrac_lower` (the dual clip's share, not the lower side) and slime's
`rollout/rewards` (centred in its group, so always near 0).
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from entrostat.runs.metrics import METRICS, Metric

Quantity = Metric
QUANTITIES: Mapping[str, Quantity] = METRICS

BY_WORDS = 1000  # ranks from here on are not a listed name but rules on words
BY_DATASET = 2000  # the rank of a name that is a data set's, which only slime's logs have
NEUTRAL = re.compile(r"(train|training|trainer|rollout|metrics)/")
NEVER_READ = frozenset({"rollout/rewards", "actor/pg_clipfrac_lower"})
REDUCED = re.compile(r"[@:](mean|sum|avg)$")  # SkyRL's and ROLL's way to say how workers' values were joined
DATASET_SCORE = re.compile(  # slime: `eval/aime` is the score on aime
    r"eval/(?!.*(loss|time|second|step|epoch|token|len|entrop|kl|num|count|std|min|max|ppl|perpl|trunc|grad|norm|ratio"
    r"|err|frac|format|lr|rate|memory|version|turn|temp|top_|seed|batch|size|max|limit|num|sampl))[a-z][a-z0-9_.+]*(-[a-z0-9_.+]+)*"
)
COMPONENT = re.compile(r"(?:^|[/_.])rewards\s*[/.]\s*([^/]+)")
WHOLE = frozenset({"mean", "avg", "total", "overall", "all", "raw", "std"})
UNIT_TESTS = re.compile(r"(unit_?)?tests?_(?=pass|case)")  # a training reward, no test split
NO_METRIC = frozenset({"timing", "time", "times", "seconds", "memory", "mem", "gpu", "cpu", "flops", "tflops", "mfu"})
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
PARTS = re.compile(r"[a-z]+\d*")

_NUMPY = re.compile(r"(?:np|numpy|torch)\.\w+\((.*)\)|tensor\(([^,()]*).*\)")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:(?:\.\d{3})+(?=,\d)|([ '])\d{3}(?:\1\d{3})*)([.,]\d+)?")  # 1.234,5  1 234.5
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)
_ABSENT = frozenset({"", "-", "--", "none", "null", "n/a", "na", "no log", "<na>"})
_GROUPS = frozenset("_, '")
_NOT_A_DIGIT_GROUP = "_"  # float() reads "1_000"; no host writes that


class Match(NamedTuple):
    """quantity: what a column holds. rank: its name's place in the schema, 0 the best; from `BY_WORDS` on, a rule's."""

    quantity: str
    rank: int


_EXACT: dict[str, Match] = {}
_PATTERNS: list[tuple[re.Pattern[str], Match]] = []
for _quantity, _metric in METRICS.items():
    for _rank, _name in enumerate(_metric.names):
        if _name.startswith("/"):
            _PATTERNS.append((re.compile(_name[1:-1]), Match(_quantity, _rank)))
        else:
            _EXACT[_name.lower()] = Match(_quantity, _rank)


@lru_cache(maxsize=16384)
def canonical(name: str) -> str:
    """A column's name in lower case, with `_` for blanks, none around a slash, and without a reduction's suffix."""
    plain = re.sub(r"\s*/\s*", "/", name.strip().rstrip(":").lower())
    return REDUCED.sub("", re.sub(r"\.?\s+", "_", plain.rstrip(".")))


def without_prefix(plain: str) -> str:
    """A canonical name without `train/`, `rollout/` and the like before it."""
    while found := NEUTRAL.match(plain):
        plain = plain[found.end() :]
    return plain


@lru_cache(maxsize=16384)
def recognise(name: str) -> Match | None:
    """The quantity that a log calls `name`; None for another column."""
    if len(name) > 300:
        return None
    plain = canonical(name)
    if plain in NEVER_READ:
        return None
    slashed = plain.replace(".", "/")  # nested objects of JSON lines, as in `metrics.actor/entropy`
    bare = without_prefix(slashed)
    for each in dict.fromkeys((plain, without_prefix(plain), slashed, bare, bare.removeprefix("train_"))):
        if each in _EXACT:
            return _EXACT[each]
        if match := next((match for pattern, match in _PATTERNS if pattern.fullmatch(each)), None):
            return match
    return _by_words(CAMEL.sub("_", name).lower()) or (
        Match("heldout", BY_DATASET) if DATASET_SCORE.fullmatch(plain) else None
    )


def _by_words(name: str) -> Match | None:
    """The quantity by the words of a name. `rewards/NAME` is one of several rewards, so it is not the reward."""
    parts = frozenset(PARTS.findall(UNIT_TESTS.sub("tests", name)))
    if parts & NO_METRIC:
        return None
    component = COMPONENT.search(name)
    if component and not WHOLE.intersection(PARTS.findall(component[1])):
        return None
    found = [
        Match(quantity, BY_WORDS + rank)
        for quantity, metric in METRICS.items()
        for rank, rule in enumerate(metric.words)
        if rule.fit(parts)
    ]
    return min(found, key=lambda match: match.rank) if found else None


def number(value: Any) -> float | None:
    """`value` as a number, NaN and infinities included; None where nothing was logged.

    Text such as "0.5", "0,5", "nan", "12%" (.12), "1,234" (a thousand and more) or "np.float64(0.5)" is read as the
    number that it names, and a list of one number as that number.
    ValueError: it names none.
    """
    if value is None or type(value) is float:
        return value
    if isinstance(value, str):
        return _number_of_text(value.strip())
    if isinstance(value, list) and len(value) == 1:
        return number(value[0])
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{value!r} is no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number_of_text(text: str) -> float | None:
    if text[:1].isdecimal() and text[-1].isdecimal() and not _GROUPS.intersection(text):
        return float(text)
    if text.lower() in _ABSENT:
        return None
    if wrapped := _NUMPY.fullmatch(text):
        text = wrapped[1] or wrapped[2] or ""
    if text.endswith("%"):
        return float(text[:-1]) / 100
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif _GROUPED.fullmatch(text):
        whole, comma, part = text.rpartition(",")
        text = re.sub(r"[ '.]", "", whole) + "." + part if comma else re.sub(r"[ ']", "", text)
    elif _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if _NOT_A_DIGIT_GROUP in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


@dataclass(frozen=True, slots=True)
class Recognised:
    """values: quantity -> value, not always finite. names: quantity -> the columns read. text: columns whose value is
    no number though a number belongs there."""

    values: dict[str, float]
    names: dict[str, tuple[str, ...]]
    text: tuple[str, ...]


def recognise_row(row: Mapping[str, Any]) -> Recognised:
    """The quantities in one row of a log. Columns of the same rank, such as two validation sets, are averaged."""
    found: dict[str, tuple[int, list[tuple[str, float]]]] = {}
    text = []
    for name, value in row.items():
        known = recognise(name)
        if known is None or known.rank == BY_DATASET:
            continue
        quantity, rank = known
        try:
            read = number(value)
        except ValueError:
            text.append(name)
            continue
        if read is None:
            continue
        best, columns = found.get(quantity, (rank, []))
        if rank < best:
            found[quantity] = (rank, [(name, read)])
        elif rank == best:
            found[quantity] = (rank, [*columns, (name, read)])
    return Recognised(
        values={quantity: mean([value for _, value in columns]) for quantity, (_, columns) in found.items()},
        names={quantity: tuple(name for name, _ in columns) for quantity, (_, columns) in found.items()},
        text=tuple(text),
    )


def mean(values: list[float]) -> float:
    """The mean of at least one value; it does not overflow before its values do."""
    return values[0] if len(values) == 1 else sum(value / len(values) for value in values)
