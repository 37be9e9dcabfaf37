"""Step records as the flat numbers that hosts log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "entrostat"
PHASES = {"decrease": -1.0, "hold": 0.0, "increase": 1.0}


def scalars(record: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, float]:
    """Nested fields joined by "/", as in entrostat/regions/E1/share; a phase becomes -1, 0 or 1; None is left out."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        key = f"{prefix}/{name}"
        if isinstance(value, Mapping):
            flat |= scalars(value, key)
        elif name == "phase":
            flat[key] = PHASES[value]
        elif value is not None:
            flat[key] = float(value)
    return flat


def nested(flat: Mapping[str, float]) -> dict[str, Any]:
    """The inverse; the host's own numbers stay: entrostat/regions/E1/share is record["regions"]["E1"]["share"]."""
    names = {number: name for name, number in PHASES.items()}
    record: dict[str, Any] = {name: value for name, value in flat.items() if not name.startswith(f"{PREFIX}/")}
    for key, value in flat.items():
        if not key.startswith(f"{PREFIX}/"):
            continue
        _, *path, last = key.split("/")
        place = record
        for part in path:
            place = place.setdefault(part, {})
        place[last] = names.get(value, "hold") if last == "phase" else value
    return record
