"""A remedy's changes as each host reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from entrostat.diagnose.reading import Log

MARKS = {  # host -> beginnings of names that it alone logs under
    "recipe": ("select", "groups."),
    "trl": ("completions/", "clip_ratio/", "frac_reward_zero_std", "eval_reward"),
    "verl": ("actor/", "critic/", "val-core/", "response_length/"),
}


def host_of(log: Log) -> str | None:
    """Whose settings the reader of a log can change: `recipe`, `trl`, `verl`, or None where its names do not tell."""
    names = [name.removeprefix("train/") for columns in log.used.values() for name in columns]
    return next((host for host, marks in MARKS.items() if any(name.startswith(marks) for name in names)), None)


def settings(changes: Mapping[str, Any], host: str) -> str:
    """YAML for our recipe, arguments of GRPOConfig for TRL, overrides for verl; empty for no changes."""
    if not changes:
        return ""
    if host == "recipe":
        return yaml.safe_dump(dict(changes), sort_keys=False).rstrip()
    if host == "trl":
        return "GRPOConfig(" + ", ".join(f"{key}={value!r}" for key, value in changes.items()) + ")"
    return " ".join(f"{key}={json.dumps(value)}" for key, value in changes.items())
