"""flexec: the schedules of flexible entropy control in verl, by the name and the settings that IterSynth gives them.

    actor_rollout_ref.actor.policy_loss.loss_mode=flexec

Tencent's IterSynth (a patch of verl 0.5) configures this loss by environment variables, which every worker needs, and
does not include it; this is an implementation of our own:

    FLEXEC_STRATEGY           id       id, did, od or static
    FLEXEC_PHASE_SPLIT        0.5      the share of the steps in the first phase
    FLEXEC_UPPER_SLOPE        -0.25    upper threshold H(p) = slope p + intercept, which raises the entropy
    FLEXEC_UPPER_INTERCEPT    0.5
    FLEXEC_LOWER_SLOPE        -0.13    lower threshold M(p), which lowers it
    FLEXEC_LOWER_INTERCEPT    0.3
    FLEXEC_CLIP_BOUND_MIN     0.05     both thresholds are clamped to [min, max]
    FLEXEC_CLIP_BOUND_MAX     0.6
    FLEXEC_OD_H_INIT          0.5      od: the entropy in nats from which its upper bound falls
    FLEXEC_OD_H_MIN_RATIO     0.2      od: its lower bound, as a share of H_INIT

id, did and od are those of `IncreaseThenDecrease`, `DecreaseIncreaseDecrease` and `OscillatoryDecay` (arXiv
2602.09782). IterSynth shows no setting for the standard thresholds and does not say what static is. Our reading: the
standard ones are verl's clip_ratio_low and clip_ratio_high, and static is H(p) and M(p) at every step. od follows the
entropy, which verl hands to no policy loss: with it, the plugin gives verl's actors the worker of `flexec_worker`.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from entrostat.control import IncreaseThenDecrease, Measured, OscillatoryDecay
from entrostat.integrations.verl import refuse_trl_beside_verl
from entrostat.integrations.verl.loss import Answer, LossCall, thresholds, verl_loss
from entrostat.objective import Clip, ClipBand, ClipRule, DualClip, LinearThreshold

NAME = "flexec"
DEFAULTS = {
    "FLEXEC_STRATEGY": "id",
    "FLEXEC_PHASE_SPLIT": "0.5",
    "FLEXEC_UPPER_SLOPE": "-0.25",
    "FLEXEC_UPPER_INTERCEPT": "0.5",
    "FLEXEC_LOWER_SLOPE": "-0.13",
    "FLEXEC_LOWER_INTERCEPT": "0.3",
    "FLEXEC_CLIP_BOUND_MIN": "0.05",
    "FLEXEC_CLIP_BOUND_MAX": "0.6",
    "FLEXEC_OD_H_INIT": "0.5",
    "FLEXEC_OD_H_MIN_RATIO": "0.2",
}

_engines: list[tuple[Any, Any]] = []


@dataclass(frozen=True)
class Clamped(ClipBand):
    """A rule whose two thresholds eps(p) are clamped to [least, most] at every token.

    r <= 1 + clamp(eps(p)) with p = r q is r <= 1 + clamp(r_max - 1), r_max the rule's own bound, since eps(p) - r falls
    in r; the lower side likewise. Raises ValueError unless 0 <= least <= most.
    """

    rule: ClipRule
    least: float
    most: float

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"FLEXEC_CLIP_BOUND_MIN is {self.least} and _MAX is {self.most}; allowed: 0 <= min <= max")

    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        """(low, high) at each token's ln pi_old, of its shape."""
        low, high = self.rule.bounds(old_logp)
        return 1 - (1 - low).clamp(self.least, self.most), 1 + (high - 1).clamp(self.least, self.most)


@dataclass(frozen=True)
class Settings:
    """The settings of the module's table, as `of` reads them."""

    strategy: str
    split: float
    upper: LinearThreshold
    lower: LinearThreshold
    least: float
    most: float
    h_init: float
    h_min_ratio: float

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Those of an environment. Raises ValueError, naming the variable, for one that is unknown or out of range."""
        if unknown := sorted(name for name in environment if name.startswith("FLEXEC_") and name not in DEFAULTS):
            raise ValueError(f"{', '.join(unknown)}: flexec reads {', '.join(DEFAULTS)}; unset it")
        text = {name: environment.get(name, default) for name, default in DEFAULTS.items()}
        strategy = text.pop("FLEXEC_STRATEGY")
        if strategy not in ("id", "did", "od", "static"):
            raise ValueError(f"FLEXEC_STRATEGY is {strategy!r}; allowed: id, did, od, static")
        split, up, up_at, low, low_at, least, most, h_init, ratio = (_number(*item) for item in text.items())
        if not 0 < split < 1:
            raise ValueError(f"FLEXEC_PHASE_SPLIT is {split}; allowed: a number in (0, 1)")
        if not 0 < h_init < math.inf:
            raise ValueError(f"FLEXEC_OD_H_INIT is {h_init}; allowed: a positive number of nats")
        if not 0 < ratio < 1:
            raise ValueError(f"FLEXEC_OD_H_MIN_RATIO is {ratio}; allowed: a number in (0, 1)")
        upper, lower = LinearThreshold(up, up_at), LinearThreshold(low, low_at)
        return cls(strategy, split, upper, lower, least, most, h_init, ratio)

    def band(self, low: float, high: float, done: float, boosting: bool = False) -> Clamped:
        """The band when the share `done` of the steps is completed; low and high: the standard thresholds. boosting: of
        od, whether it raises the entropy.
        """
        standard_low, standard_high = LinearThreshold.constant(low), LinearThreshold.constant(high)
        first, weight = IncreaseThenDecrease(split=self.split).fade(done)
        lower = standard_low if first else self.lower.mix(standard_low, weight)
        if self.strategy == "id":
            rule = ClipRule(self.upper.mix(standard_high, weight) if first else standard_high, lower)
        elif self.strategy == "did":
            rule = ClipRule(standard_high.mix(self.upper, weight) if first else self.upper, lower)
        elif self.strategy == "od":
            rule = ClipRule(self.upper, standard_low) if boosting else ClipRule(standard_high, self.lower)
        else:
            rule = ClipRule(self.upper, self.lower)
        return Clamped(rule, self.least, self.most)


class Oscillation(OscillatoryDecay):
    """od under flexec: the hysteresis of `OscillatoryDecay`, and the clamped band of the settings.

    low, high: the standard thresholds. done: the completed share of verl's training steps, by which tau_high falls.
    """

    def __init__(self, settings: Settings, low: float, high: float, done: Callable[[], float]) -> None:
        super().__init__(h_init=settings.h_init, h_min_ratio=settings.h_min_ratio)
        self.settings, self.standard, self.done = settings, (low, high), done

    def observe(self, step: Measured) -> None:
        """Update the hysteresis with the entropy of an optimizer step."""
        super().observe(replace(step, progress=self.done()))

    def clip(self) -> Clamped:  # type: ignore[override]
        """The band in force."""
        return self.settings.band(*self.standard, 0.0, self.phase == "increase")

    def bands(self) -> tuple[Clamped, ...]:  # type: ignore[override]
        """Both bands."""
        return tuple(self.settings.band(*self.standard, 0.0, boosting) for boosting in (False, True))


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}; give a number") from error


def register() -> None:
    """Put flexec into verl's registry of policy losses, unless one of that name is there."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss

    if NAME not in POLICY_LOSS_REGISTRY:
        register_policy_loss(NAME)(flexec)


def flexec(*args: Any, **kwargs: Any) -> Answer:
    """verl's policy loss under the band of the present training step; like "vanilla" with clip_ratio_c.

    A step is one of verl's training steps, as the actor's learning-rate scheduler counts them, of
    actor.optim.total_training_steps; verl's checkpoints have both. Raises ValueError for settings out of range, and for
    od in a worker that does not follow the entropy.
    """
    refuse_trl_beside_verl()
    call, settings = LossCall(*args, **kwargs), Settings.of(os.environ)
    if settings.strategy == "od":
        raise ValueError(
            "FLEXEC_STRATEGY is od, which follows the entropy, and this is not the worker that flexec gives verl's "
            "actors; set the variable in the environment of every worker before verl starts, and keep verl's own "
            "ActorRolloutRefWorker"
        )
    config = call.config
    band = settings.band(*thresholds(config), done_share(config, _engine(config)))
    return verl_loss(call, Clip(), DualClip(band, config.get("clip_ratio_c", 3.0)))[0]


def done_share(config: Any, engine: Any) -> float:
    """The completed share of verl's training steps, in [0, 1]. Raises ValueError if verl has not set their number."""
    total = int(config.optim.total_training_steps)
    if total < 1:
        raise ValueError(f"actor.optim.total_training_steps is {total}; verl's trainer sets it, flexec needs it")
    scheduler = engine.lr_scheduler
    steps = scheduler.last_epoch if hasattr(scheduler, "last_epoch") else scheduler.num_steps
    return min(int(steps) / total, 1.0)


def _engine(config: Any) -> Any:
    """The engine of the worker of this process whose loss has this configuration; a loss does not know its worker."""
    for known, engine in _engines:
        if known is config:
            return engine
    workers = sys.modules.get("verl.workers.engine_workers")
    for one in gc.get_objects() if workers else ():
        if issubclass(type(one), workers.TrainingWorker) and _configuration(one) is config:  # type: ignore[union-attr]
            _engines.append((config, one.engine))
            return one.engine
    raise ValueError("flexec is called outside verl's training worker, whose learning-rate scheduler counts the steps")


def _configuration(worker: Any) -> Any:
    """The configuration in a worker's loss, which verl builds as partial(ppo_loss, config=...)."""
    return getattr(worker.loss_fn, "keywords", {}).get("config")
