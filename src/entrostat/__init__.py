"""Entropy control and collapse prevention for reinforcement learning with verifiable rewards (RLVR).

Importing this package imports nothing heavy: the names below bring torch with them when they are first used, so that
what needs none, such as reading a log, does not wait for it. Tasks, grading, runs, campaigns and the engine are
imported from their own rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entrostat.control import EntropyController
    from entrostat.entropy import Region, entropy_flow, polarity, regions, sensitivity
    from entrostat.objective import ClipRule, LinearThreshold, advantages, aggregate, policy_loss
    from entrostat.tokens import TokenStats, fused_token_stats, token_stats, topk_token_stats

__all__ = [
    "ClipRule",
    "EntropyController",
    "LinearThreshold",
    "Region",
    "TokenStats",
    "advantages",
    "aggregate",
    "entropy_flow",
    "fused_token_stats",
    "polarity",
    "policy_loss",
    "regions",
    "sensitivity",
    "token_stats",
    "topk_token_stats",
]

_ROOMS = ("control", "entropy", "objective", "tokens")


def __getattr__(name: str) -> Any:
    """One of the names above, from its room (PEP 562)."""
    if name in __all__:
        for room in map(import_module, (f"entrostat.{room}" for room in _ROOMS)):
            if name in room.__all__:
                value = globals()[name] = getattr(room, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
