"""The fields of the lines of a run folder, and what a line is refused for when it is written or read.

A field that is listed here holds what stands beside it; null is a quantity that was not measured. Any other field, such
as a host's own measurement, is kept as it is.
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


def _that(fits: Callable[[Any], bool], wanted: str) -> Fault:
    return lambda name, value: None if fits(value) else f"{name} is {_shown(value)}; it holds {wanted}"


def _or_null(fault: Fault) -> Fault:
    def found(name: str, value: Any) -> str | None:
        other = None if value is None else fault(name, value)
        return other and f"{other}, or null"

    return found


def _named(fault: Fault, *required: str) -> Fault:
    """Values by name, each without the fault."""

    def found(name: str, value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"{name} is {_shown(value)}; it holds values by name"
        lacking = (f"{name}.{key} is missing" for key in required if key not in value)
        return next(lacking, None) or next(
            filter(None, (fault(f"{name}.{key}", own) for key, own in value.items())), None
        )

    return found


def _results(name: str, value: Any) -> str | None:
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


COUNT = _that(is_count, "a whole number from 0")
NUMBER = _that(is_number, "a finite number")
MEASURED = _or_null(NUMBER)
TEXT = _that(lambda value: isinstance(value, str), "text")
SHARES = _or_null(_named(MEASURED))
COUNTS = _or_null(_named(COUNT))
BOUNDS = _or_null(_named(NUMBER, "upper_slope", "upper_intercept", "lower_slope", "lower_intercept"))
PART = _that(
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_count, value)),
    "the first and the last task of a part of the split, [first, last]",
)

RENAMED = {"kl": "kl_old"}  # what step lines called a field before, and what it is called now

MEASURED_PER_STEP = """
    loss grad_norm lr reward entropy flow_up flow_down share_up share_down flow_rms flow_lowest flow_highest
    clip_fraction clip_fraction_low clip_fraction_high ratio_outside log_ratio_min_punished kl_old kl_reference
    kl_sampler kl_coefficient ewc predicted_change predicted_error measured_change first_order_change entropy_coef
    length truncated reward_std
"""

STEP = Line(
    {
        **dict.fromkeys(("step", "minibatch"), COUNT),
        "batch": _or_null(COUNT),
        "epoch": MEASURED,  # of a host a fraction: how much of its data it has gone through
        **dict.fromkeys(MEASURED_PER_STEP.split(), MEASURED),
        "regions": _or_null(_named(_named(MEASURED))),
        "flow_by_rule": SHARES,
        "groups": SHARES,
        "mismatch": SHARES,
        "staleness": _or_null(COUNT),
        "bounds": BOUNDS,
        "phase": _or_null(TEXT),
        "verdicts": COUNTS,
        "tokens": _named(NUMBER),
        "seconds": _named(NUMBER),
    },
    ("step",),
)
EVALUATION = Line(
    {
        "step": COUNT,
        "split": TEXT,
        "results": _results,
        "pass_at": _named(MEASURED),
        **dict.fromkeys(("distinct", "hard", "entropy", "length", "truncated", "tokens", "seconds"), MEASURED),
        "verdicts": COUNTS,
        "at": COUNT,
        "tasks": _or_null(PART),
    },
    ("step", "split", "results"),
)
DECISION = Line({"step": COUNT, "kind": TEXT, "cause": TEXT, "to_step": COUNT}, ("step", "kind", "cause"))
SAMPLE = Line(
    {
        "step": COUNT,
        "split": TEXT,
        "task": TEXT,
        "prompt": TEXT,
        "completion": TEXT,
        "outcome": TEXT,
        "advantage": MEASURED,
    },
    ("step", "split", "task", "prompt", "completion", "outcome"),
)
HEADER = Line(
    {
        "recipe": _that(lambda value: isinstance(value, dict), "a recipe by its keys"),
        "seed": _that(lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
        "hashes": _named(TEXT),
        "versions": _named(TEXT),
    },
    ("recipe", "seed", "hashes", "versions"),
)


def under_new_names(line: Record) -> dict[str, Any]:
    """A step line, which may be an old one, with today's names of its fields."""
    return {name if (new := RENAMED.get(name)) is None or new in line else new: own for name, own in line.items()}


def checked(lines: list[dict[str, Any]], kind: Line, file: Path) -> list[dict[str, Any]]:
    """The lines of a file as they are. RunError, naming file, line and field: one is not of the kind."""
    for number, line in enumerate(lines, start=1):
        kind.check(line, f"{file}, line {number}")
    return lines
