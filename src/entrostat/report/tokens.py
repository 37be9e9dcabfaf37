"""A sample token by token: what each token said, and what learning from it does to entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrostat.runs.checks import is_number


@dataclass(frozen=True, slots=True)
class TokenView:
    """The tokens of one completion, one entry each.

    polarity: advantage times sensitivity, above 0 where learning from the token raises entropy; None where no advantage
    was recorded. sensitivity: the same of advantage 1. entropy of the distribution the token was drawn from, surprisal
    -ln p of the token; nats.
    """

    text: list[str]
    polarity: list[float] | None
    sensitivity: list[float]
    entropy: list[float]
    surprisal: list[float]


def token_view(sample: Mapping[str, Any]) -> TokenView | None:
    """The tokens of a sample line; None where it has none, or what stands there is no token record."""
    record = sample.get("tokens")
    if not isinstance(record, Mapping):
        return None
    text = record.get("text")
    if not (isinstance(text, list) and text and all(isinstance(piece, str) for piece in text)):
        return None
    logp, entropy, sensitivity = (
        _numbers(record.get(field), len(text)) for field in ("logp", "entropy", "sensitivity")
    )
    if logp is None or entropy is None or sensitivity is None:
        return None
    advantage = _numbers([sample.get("advantage")], 1)
    polarity = [advantage[0] * value for value in sensitivity] if advantage else None
    return TokenView(text, polarity, sensitivity, entropy, [-value for value in logp])


def _numbers(column: object, length: int) -> list[float] | None:
    """`column` if it is a list of `length` finite numbers."""
    if not isinstance(column, list) or len(column) != length:
        return None
    return column if all(map(is_number, column)) else None
