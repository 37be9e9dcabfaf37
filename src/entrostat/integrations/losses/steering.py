"""Control of other trainers' losses: the clip thresholds of every token, under a schedule.

The host's own loss runs, with its normalisers, old log-probabilities, masks, corrections and metrics; only the numbers
that it reads as its clip thresholds are ours. In tier A a schedule sets them by steps; in tier B, where the host passes
on the entropy, a strategy may follow it. ENTROSTAT_CONTROL names a YAML file that every worker process reads:

    strategy: {name: id, split: 0.5}   # as control.strategy in a recipe
    total_steps: 400                   # the host's own training steps
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from entrostat.control import EntropyController, Schedule, Strategy
from entrostat.objective import ClipBand, ClipRule
from entrostat.recipe import RecipeError, build_controller, parse_recipe
from entrostat.recipe.loading import read_mapping

CONTROL = "ENTROSTAT_CONTROL"
KEYS = ("strategy", "total_steps")

Threshold = float | Tensor
Tier = Literal["A", "B"]


@dataclass(frozen=True)
class Steering:
    """The thresholds of a schedule over the `total_steps` training steps of a host (tier A).

    Raises ValueError for a strategy that follows the entropy, for a band that clips differently from PPO's pessimistic
    minimum, which is what the hosts compute, and for total_steps < 1.
    """

    strategy: Strategy
    total_steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Schedule):
            raise ValueError(
                f"strategy is {type(self.strategy).__name__}, which follows the entropy, and this host is steered by "
                "steps alone (tier A); choose a Schedule, such as constant, id, did or piecewise"
            )
        refuse_bands((self.strategy.rule(0, self.total_steps), *self.strategy.bands()))

    def thresholds(self, step: int, old_logp: Tensor) -> tuple[Threshold, Threshold]:
        """The thresholds after `step` steps; see `thresholds_of`."""
        return thresholds_of(cast(Schedule, self.strategy).rule(step, self.total_steps), old_logp)


class EntropySteering:
    """The thresholds of a strategy that follows the entropy, which the host provides (tier B).

    begin_step(step) at the start of every training step, on every rank; record(entropy, mask) for every micro-batch.
    Raises ValueError for a strategy that needs more than the entropy, and for bands as `Steering` does.
    """

    def __init__(self, strategy: Strategy, total_steps: int) -> None:
        if strategy.weighs or strategy.pays:
            raise ValueError(
                f"strategy is {type(strategy).__name__}, which weighs tokens or gives a bonus, and this host is "
                "steered by thresholds alone (tier B)"
            )
        self.strategy, self.total_steps = strategy, total_steps
        self.controller = EntropyController(strategy, total_steps=total_steps)
        refuse_bands((self.controller.rule(), *strategy.bands()))
        self.step: int | None = None
        self._sums = torch.zeros(2, dtype=torch.float64)

    def thresholds(self, step: int, old_logp: Tensor) -> tuple[Threshold, Threshold]:  # noqa: ARG002
        """The thresholds of the current step; see `thresholds_of`."""
        return thresholds_of(self.controller.rule(), old_logp)

    @torch.no_grad()
    def record(self, entropy: Tensor, mask: Tensor) -> None:
        """Add a micro-batch: H in nats and the tokens that count, both (...)."""
        counted = mask.bool()
        self._sums += torch.stack([entropy[counted].double().sum(), counted.sum().double()]).cpu()

    def begin_step(self, step: int) -> None:
        """Let the strategy observe the mean entropy of the previous step, over all ranks of the process group.

        A second call for the same step has no effect.
        """
        if self.step is not None and step != self.step:
            entropy, tokens = self._over_ranks().tolist()
            self._sums.zero_()
            if tokens:
                self.controller.observe(step, entropy, tokens)
        self.step = step

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, JSON-able, at the start of the current step."""
        return {"step": self.step, "controller": self.controller.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.controller.load_state_dict(state["controller"])
        self.step = state["step"]
        self._sums.zero_()

    def _over_ranks(self) -> Tensor:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self._sums
        nccl = torch.distributed.get_backend() == "nccl"
        sums = self._sums.to(torch.device("cuda", torch.cuda.current_device()) if nccl else "cpu", copy=True)
        torch.distributed.all_reduce(sums)
        return sums.cpu()


Control = Steering | EntropySteering


@torch.no_grad()
def thresholds_of(band: ClipBand, old_logp: Tensor) -> tuple[Threshold, Threshold]:
    """(1 - low, high - 1) of a band at each token's ln pi_old, of its shape (...).

    Two numbers for a band that is the same for every token. A log-probability that is not finite (padding) counts as 0.
    """
    if isinstance(band, ClipRule) and band.lower.slope == band.upper.slope == 0:
        return band.lower.intercept, band.upper.intercept
    low, high = band.bounds(old_logp.float().nan_to_num(0.0, 0.0, 0.0))
    return 1 - low, high - 1


def refuse_bands(bands: Iterable[ClipBand]) -> None:
    """Raise ValueError for a band that clips differently from PPO's pessimistic minimum."""
    for band in bands:
        if type(band).limits is not ClipBand.limits:
            raise ValueError(
                f"strategy: {type(band).__name__} clips differently from PPO's minimum, which is the host's loss; "
                "give a band with bounds only, and set a dual clip in the host"
            )


def parse(settings: Mapping[str, Any], origin: str, tier: Tier = "A") -> Control:
    """The steering that the keys of the module's example describe, in a host of that tier.

    Raises ValueError, naming `origin` and the key.
    """
    if unknown := sorted(set(settings) - set(KEYS)):
        raise ValueError(
            f"{origin}: {', '.join(unknown)}: this host reads only {' and '.join(KEYS)} (tier {tier}); remove it"
        )
    steps = settings.get("total_steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"{origin}: total_steps is {steps!r}; give the host's training steps, at least 1")
    control = {"strategy": settings["strategy"]} if settings.get("strategy") else {}
    try:
        recipe = parse_recipe({"name": "host", "campaign": {"steps": steps}, "control": control}, origin=origin)
    except RecipeError as error:
        raise ValueError(str(error)) from error
    strategy = cast(Strategy, build_controller(recipe).strategy)
    follows = tier == "B" and not isinstance(strategy, Schedule)
    return EntropySteering(strategy, steps) if follows else Steering(strategy, steps)


@cache
def steering_of_file(path: str, tier: Tier = "A") -> Control:
    """The steering that a YAML file describes, one per process. ValueError: missing, no mapping, an invalid key."""
    control = parse(read_mapping(Path(path)), path, tier)
    print(f"entrostat: {type(control).__name__} by {path}, {control.strategy}", flush=True)
    return control


def steering(tier: Tier = "A") -> Control:
    """The steering of this process, from ENTROSTAT_CONTROL. Raises ValueError if that is not set."""
    if not (path := os.environ.get(CONTROL)):
        raise ValueError(f"{CONTROL} is not set in this process; let it name a YAML file with strategy and total_steps")
    return steering_of_file(path, tier)


def refuse(host: str, settings: Mapping[str, tuple[Any, Collection[Any]]]) -> None:
    """Raise ValueError for the first setting with a value that a steered loss does not support.

    settings: the host's name of a setting -> (its value, allowed values).
    """
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            wanted = " or ".join(repr(choice) for choice in allowed)
            raise ValueError(
                f"{host}: {name} is {value!r}, under which entrostat's thresholds would not have their effect "
                f"per token; set it to {wanted}, or train without entrostat"
            )


class Overlay:
    """An object whose named attributes are replaced, for code that only reads it."""

    def __init__(self, base: Any, **replaced: Any) -> None:
        self.__dict__.update(_base=base, **replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_base"], name)
