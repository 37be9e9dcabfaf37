"""A remedy's changes as each host reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml


def settings(changes: Mapping[str, Any], host: str) -> str:
    """YAML for our recipe, arguments of GRPOConfig for TRL, overrides for verl; empty for no changes."""
    if not changes:
        return ""
    if host == "recipe":
        return yaml.safe_dump(dict(changes), sort_keys=False).rstrip()
    if host == "trl":
        return "GRPOConfig(" + ", ".join(f"{key}={value!r}" for key, value in changes.items()) + ")"
    return " ".join(f"{key}={json.dumps(value)}" for key, value in changes.items())
