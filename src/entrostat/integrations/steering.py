"""What the losses of other trainers are steered by: the clip thresholds of every token, under a schedule.

The host's own loss runs, with its normalisers, old log-probabilities, masks, corrections and metrics; only the numbers
that it reads as its clip thresholds are ours. Tier A: no entropy is handed over, so a schedule moves by steps alone.
ENTROSTAT_CONTROL names a YAML file that every worker process reads:

    strategy: {name: id, split: 0.5}   # as control.strategy in a recipe
    total_steps: 400                   # the host's own training steps
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from entrostat.control import Schedule
from entrostat.objective import ClipBand, ClipRule
from entrostat.recipe import RecipeError, build_controller, parse_recipe
from entrostat.recipe.loading import read_mapping

CONTROL = "ENTROSTAT_CONTROL"
KEYS = ("strategy", "total_steps")

Threshold = float | Tensor


@dataclass(frozen=True)
class Steering:
    """The thresholds of a strategy over the `total_steps` training steps of a host.

    Raises ValueError for a strategy that follows the entropy, for a band that cuts otherwise than PPO's pessimistic
    minimum, which is what the hosts compute, and for total_steps < 1.
    """

    strategy: Schedule
    total_steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Schedule):
            raise ValueError(
                f"strategy is {type(self.strategy).__name__}, which follows the entropy, and this host is steered by "
                "steps alone (tier A); choose a Schedule, such as constant, id, did or piecewise"
            )
        for band in (self.strategy.rule(0, self.total_steps), *self.strategy.bands()):
            if type(band).limits is not ClipBand.limits:
                raise ValueError(
                    f"strategy: {type(band).__name__} cuts otherwise than PPO's minimum, which is the host's loss; "
                    "give a band with bounds alone, and set a dual clip in the host"
                )

    @torch.no_grad()
    def thresholds(self, step: int, old_logp: Tensor) -> tuple[Threshold, Threshold]:
        """(1 - low, high - 1) of the band after `step` steps at each token's ln pi_old, of its shape (...).

        Two numbers for a band that is the same for every token. A log-probability that is not finite (padding) counts
        as 0.
        """
        band = self.strategy.rule(step, self.total_steps)
        if isinstance(band, ClipRule) and band.lower.slope == band.upper.slope == 0:
            return band.lower.intercept, band.upper.intercept
        low, high = band.bounds(old_logp.float().nan_to_num(0.0, 0.0, 0.0))
        return 1 - low, high - 1

    @classmethod
    def parse(cls, settings: Mapping[str, Any], origin: str) -> Steering:
        """From the keys of the module's example. Raises ValueError, naming `origin` and the key."""
        if unknown := sorted(set(settings) - set(KEYS)):
            raise ValueError(
                f"{origin}: {', '.join(unknown)}: this host is steered by {' and '.join(KEYS)} alone (tier A); drop it"
            )
        steps = settings.get("total_steps")
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"{origin}: total_steps is {steps!r}; give the host's training steps, at least 1")
        control = {"strategy": settings["strategy"]} if settings.get("strategy") else {}
        try:
            recipe = parse_recipe({"name": "host", "campaign": {"steps": steps}, "control": control}, origin=origin)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return cls(cast(Schedule, build_controller(recipe).strategy), steps)


@cache
def steering_of_file(path: str) -> Steering:
    """The steering that a YAML file describes. Raises ValueError where it is missing or no mapping."""
    file = Path(path)
    steering = Steering.parse(read_mapping(file), path)
    print(f"entrostat: tier A, {steering.strategy}, {steering.total_steps} steps", flush=True)
    return steering


def steering() -> Steering:
    """The steering of this process, by ENTROSTAT_CONTROL. Raises ValueError where that is not set."""
    if not (path := os.environ.get(CONTROL)):
        raise ValueError(f"{CONTROL} is not set in this process; let it name a YAML file with strategy and total_steps")
    return steering_of_file(path)


def refuse(host: str, settings: Mapping[str, tuple[Any, Collection[Any]]]) -> None:
    """Raise ValueError for the first setting whose value is not one of those that a steered loss carries.

    settings: the host's name of a setting -> (its value, what it may be).
    """
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            wanted = " or ".join(repr(choice) for choice in allowed)
            raise ValueError(
                f"{host}: {name} is {value!r}, and the thresholds that entrostat sets would not do there what they do "
                f"per token; set it to {wanted}, or train without entrostat"
            )


class Overlay:
    """An object whose named attributes are replaced, for code that only reads it."""

    def __init__(self, base: Any, **replaced: Any) -> None:
        self.__dict__.update(_base=base, **replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_base"], name)
