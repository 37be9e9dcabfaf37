"""What the fields of a line may hold: checks that return what is wrong, and the kinds of lines made of them.

Null is a quantity that was not measured. A field that a kind of line does not list, such as a host's own measurement,
is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from entrostat.runs.files import Record, RunError

GREATEST = 2.0**1023  # numbers stay finite when they are added up
MOST = 2**53  # counts are exact as a float


Fault = Callable[[str, Any], str | None]
"""What is wrong with the value of a field of this name; None where nothing is."""


@dataclass(frozen=True, slots=True)
class Line:
    """The fields of one kind of line, and which of them every line has."""

    fields: Mapping[str, Fault]
    required: tuple[str, ...]

    def check(self, line: Record, where: str) -> None:
        """Raise RunError, naming the field, for a line that lacks a field or holds something else in it."""
        for name in self.required:
            if name not in line:
                raise RunError(f"{where}: field {name!r} is missing; a line needs {', '.join(self.required)}")
        for name, fault in self.fields.items():
            if name in line and (found := fault(name, line[name])):
                raise RunError(f"{where}: {found}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -GREATEST < value < GREATEST


def is_count(value: Any) -> bool:
    """Whether a value is 0, 1, 2, ..."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _shown(value: Any) -> str:
    whole = isinstance(value, int) and abs(value) >= MOST
    return f"an integer of {value.bit_length()} bits" if whole else shortened(value)


def holding(fits: Callable[[Any], bool], wanted: str) -> Fault:
    """Values that fit; `wanted` is what a message calls them."""
    return lambda name, value: None if fits(value) else f"{name} is {_shown(value)}; it holds {wanted}"


def or_null(fault: Fault) -> Fault:
    """Null, or values without the fault."""

    def found(name: str, value: Any) -> str | None:
        other = None if value is None else fault(name, value)
        return other and f"{other}, or null"

    return found


def named(fault: Fault, *required: str) -> Fault:
    """Values by name, each without the fault."""

    def found(name: str, value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"{name} is {_shown(value)}; it holds values by name"
        lacking = (f"{name}.{key} is missing" for key in required if key not in value)
        return next(lacking, None) or next(
            filter(None, (fault(f"{name}.{key}", own) for key, own in value.items())), None
        )

    return found


def checked(lines: list[dict[str, Any]], kind: Line, file: Path) -> list[dict[str, Any]]:
    """The lines of a file as they are. RunError, naming file, line and field: one is not of the kind."""
    for number, line in enumerate(lines, start=1):
        kind.check(line, f"{file}, line {number}")
    return lines


def results(name: str, value: Any) -> str | None:
    """[task id, n, c] of each task of an evaluation."""
    if not isinstance(value, list):
        return f"{name} is {_shown(value)}; it holds a list of [task id, n, c], c of n samples correct"
    return next(filter(None, (_result(f"{name}[{place}]", each) for place, each in enumerate(value))), None)


def _result(name: str, value: Any) -> str | None:
    match value:
        case [str() | int(), n, c]:
            if not is_count(n) or n == 0:
                return f"{name}[1] is {_shown(n)}; it counts samples: 1, 2, ..."
            return None if is_count(c) and c <= n else f"{name}[2] is {_shown(c)}; it counts the correct of {n} samples"
    return f"{name} is {_shown(value)}; it holds [task id, n, c], c of n samples correct"


COUNT = holding(is_count, "a whole number from 0")
NUMBER = holding(is_number, "a finite number")
MEASURED = or_null(NUMBER)
TEXT = holding(lambda value: isinstance(value, str), "text")
SHARES = or_null(named(MEASURED))
COUNTS = or_null(named(COUNT))
BOUNDS = or_null(named(NUMBER, "upper_slope", "upper_intercept", "lower_slope", "lower_intercept"))
PART = holding(
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_count, value)),
    "the first and the last task of a part of the split, [first, last]",
)
