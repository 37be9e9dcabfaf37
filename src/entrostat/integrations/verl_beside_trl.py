"""The extras trl and verl exclude each other: verl imports a class from any TRL it finds, and newer ones lack it.

verl hides what a plugin raises when it is imported, so this is asked when a loss or a trainer of ours is built.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from entrostat.errors import EntrostatError

WANTED = "AutoModelForCausalLMWithValueHead"
HOMES = ("trl.experimental.ppo", "trl")


class ExclusiveExtrasError(EntrostatError, ImportError):
    """TRL is installed beside a verl that it breaks; the message names the remedy."""


def refuse_trl_beside_verl() -> None:
    """Raise ExclusiveExtrasError where verl would fail on the TRL beside it, when it patches the model."""
    if _broken():
        raise ExclusiveExtrasError(
            f"TRL is installed beside verl, and verl fails to import {WANTED} from it when it builds the model; "
            "pip uninstall trl, and keep entrostat[trl] and entrostat[verl] in two environments"
        )


@cache
def _broken() -> bool:
    return find_spec("trl") is not None and not any(_has(home) for home in HOMES)


def _has(home: str) -> bool:
    try:
        return hasattr(import_module(home), WANTED)
    except Exception:  # whatever TRL raises at import it would raise in verl, too
        return False
