"""Step records as the flat numbers that hosts log, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

PREFIX = "entrostat"
PHASES = {"decrease": -1.0, "hold": 0.0, "increase": 1.0}
COUNTS = frozenset({"staleness"})  # whole numbers in a step line, which hosts log as floats
NAMES = {  # of a host's log, and what a step line calls the same
    "learning_rate": "lr",
    "actor/lr": "lr",
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/entropy": "entropy",
    "critic/score/mean": "reward",
    "response_length/mean": "length",
    "response_length/clip_ratio": "truncated",
    "kl": "kl_reference",
    "actor/kl_loss": "kl_reference",
    "actor/ppo_kl": "kl_old",
    "rollout_corr/kl": "kl_sampler",
}


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
        if last == "phase":
            place[last] = names.get(value, "hold")
        else:
            place[last] = int(value) if last in COUNTS else value
    return record


def step_line(step: int, logged: Mapping[str, Any]) -> dict[str, Any]:
    """A step line of a run folder: the finite numbers that a host logged, under the folder's names where it has one."""
    numbers = {
        NAMES.get(name, name).removeprefix("actor/" if name.startswith("actor/entrostat/") else ""): value
        for name, value in logged.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return {"step": step} | nested(numbers) | {"step": step}
