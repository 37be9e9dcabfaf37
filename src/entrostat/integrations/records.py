"""Step records as the flat numbers that hosts log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "entrostat"
PHASES = {"decrease": -1.0, "hold": 0.0, "increase": 1.0}


def scalars(record: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, float]:
    """Nested fields joined by "/", as in entrostat/regions/E1/share; a phase becomes -1, 0 or 1; None is left out."""
    found: dict[str, float] = {}
    for name, value in record.items():
        key = f"{prefix}/{name}"
        if isinstance(value, Mapping):
            found |= scalars(value, key)
        elif name == "phase":
            found[key] = PHASES[value]
        elif value is not None:
            found[key] = float(value)
    return found
