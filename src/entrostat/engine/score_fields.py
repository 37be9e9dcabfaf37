"""Fields of a record to be scored: what they may hold, and the plain error where they hold something else."""

from __future__ import annotations

import math
from typing import Any

from entrostat.errors import EntrostatError

ROUNDING = 1e-3  # nats above 0 that a rounded log-probability may show


class ScoreError(EntrostatError, ValueError):
    """Completions that cannot be scored; the message names file, line, field, value and remedy."""


def finite_number(value: Any, where: str, name: str) -> float:
    """The value as a float. ScoreError: it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: a finite number")
    return float(value)


def log_probability(value: Any, where: str, name: str) -> float:
    """The value as a natural log-probability. ScoreError: it is no finite number <= 0."""
    number = finite_number(value, where, name)
    if number > ROUNDING:
        raise ScoreError(f"{where}: {name} is {number}; allowed: <= 0. Record natural log-probabilities")
    return number


def integers(value: Any, where: str, name: str) -> list[int]:
    """The value as a list of whole numbers. ScoreError: it is none."""
    if not isinstance(value, list):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: a list of token ids")
    for place, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int):
            raise ScoreError(f"{where}: {name}[{place}] is {str(item)[:60]!r}; allowed: a token id, a whole number")
    return value


def objects(value: Any, where: str, name: str) -> list[dict[str, Any]]:
    """The value as a list of JSON objects. ScoreError: it is none."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: a list of objects {{...}}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False
