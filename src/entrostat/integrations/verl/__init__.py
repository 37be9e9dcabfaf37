"""verl: policy losses by name, its trainer under a controller, campaigns with it, and the watchdog.

The extras trl and verl exclude each other: verl imports a class from any installed TRL, and newer ones lack it. verl
hides exceptions of plugins at import, so this is checked when a loss or a trainer of ours is built.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from entrostat.errors import EntrostatError

WANTED = "AutoModelForCausalLMWithValueHead"
HOMES = ("trl.experimental.ppo", "trl")


class ExclusiveExtrasError(EntrostatError, ImportError):
    """TRL is installed next to a verl that it breaks; the message names the remedy."""


def refuse_trl_beside_verl() -> None:
    """Raise ExclusiveExtrasError if verl would fail on the installed TRL when it patches the model."""
    if _broken():
        raise ExclusiveExtrasError(
            f"TRL is installed next to verl, and verl fails to import {WANTED} from it when it builds the model; "
            "pip uninstall trl, and keep entrostat[trl] and entrostat[verl] in two environments"
        )


@cache
def _broken() -> bool:
    return find_spec("trl") is not None and not any(_has(home) for home in HOMES)


def _has(home: str) -> bool:
    try:
        return hasattr(import_module(home), WANTED)
    except Exception:  # anything that TRL raises at import would be raised in verl too
        return False
