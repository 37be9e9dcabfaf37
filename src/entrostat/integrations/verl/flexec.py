"""flexec: the schedules of flexible entropy control in verl, by the name and the settings that IterSynth gives them.

    actor_rollout_ref.actor.policy_loss.loss_mode=flexec

Tencent's IterSynth (a patch of verl 0.5) configures this loss by environment variables, which every worker needs, and
does not include it; this is an implementation of our own:

    FLEXEC_STRATEGY           id       id, did or static (od: see `flexec`)
    FLEXEC_PHASE_SPLIT        0.5      the share of the steps in the first phase
    FLEXEC_UPPER_SLOPE        -0.25    upper threshold H(p) = slope p + intercept, which raises the entropy
    FLEXEC_UPPER_INTERCEPT    0.5
    FLEXEC_LOWER_SLOPE        -0.13    lower threshold M(p), which lowers it
    FLEXEC_LOWER_INTERCEPT    0.3
    FLEXEC_CLIP_BOUND_MIN     0.05     both thresholds are clamped to [min, max]
    FLEXEC_CLIP_BOUND_MAX     0.6

id and did are those of `IncreaseThenDecrease` and `DecreaseIncreaseDecrease` (arXiv 2602.09782). IterSynth shows no
setting for the standard thresholds and does not say what static is. Our reading: the standard ones are verl's
clip_ratio_low and clip_ratio_high, and static is H(p) and M(p) at every step.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from entrostat.control import IncreaseThenDecrease
from entrostat.integrations.verl.beside_trl import refuse_trl_beside_verl
from entrostat.integrations.verl.loss import Answer, thresholds, verl_loss
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
}
OF_OD = ("FLEXEC_OD_H_INIT", "FLEXEC_OD_H_MIN_RATIO")

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

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Those of an environment. Raises ValueError, naming the variable, for one that is unknown or out of range."""
        known = (*DEFAULTS, *OF_OD)
        if unknown := sorted(name for name in environment if name.startswith("FLEXEC_") and name not in known):
            raise ValueError(f"{', '.join(unknown)}: flexec reads {', '.join(DEFAULTS)}; unset it")
        text = {name: environment.get(name, default) for name, default in DEFAULTS.items()}
        strategy = text.pop("FLEXEC_STRATEGY")
        if strategy == "od":
            raise ValueError(
                "FLEXEC_STRATEGY is od, which follows the entropy, and verl hands no entropy to a policy loss; set "
                "trainer.v1.trainer_mode=entrostat, actor_rollout_ref.actor.policy_loss.loss_mode=entrostat_controlled "
                "and +trainer.v1.entrostat.strategy={name: od, h_init: 0.5}"
            )
        if strategy not in ("id", "did", "static"):
            raise ValueError(f"FLEXEC_STRATEGY is {strategy!r}; allowed: id, did, od, static")
        split, up, up_at, low, low_at, least, most = (_number(name, value) for name, value in text.items())
        if not 0 < split < 1:
            raise ValueError(f"FLEXEC_PHASE_SPLIT is {split}; allowed: a number in (0, 1)")
        return cls(strategy, split, LinearThreshold(up, up_at), LinearThreshold(low, low_at), least, most)

    def band(self, low: float, high: float, done: float) -> Clamped:
        """The band when the share `done` of the steps is completed; low and high: the standard thresholds."""
        standard_low, standard_high = LinearThreshold.constant(low), LinearThreshold.constant(high)
        first, weight = IncreaseThenDecrease(split=self.split).fade(done)
        lower = standard_low if first else self.lower.mix(standard_low, weight)
        if self.strategy == "id":
            rule = ClipRule(self.upper.mix(standard_high, weight) if first else standard_high, lower)
        elif self.strategy == "did":
            rule = ClipRule(standard_high.mix(self.upper, weight) if first else self.upper, lower)
        else:
            rule = ClipRule(self.upper, self.lower)
        return Clamped(rule, self.least, self.most)


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


def flexec(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> Answer:
    """verl's policy loss under the band of the present training step; like "vanilla" with clip_ratio_c.

    A step is one of verl's training steps, as the actor's learning-rate scheduler counts them, of
    actor.optim.total_training_steps; verl's checkpoints have both. Raises ValueError for settings out of range, and for
    od, which needs the entropy.
    """
    refuse_trl_beside_verl()
    band = Settings.of(os.environ).band(*thresholds(config), done_share(config))
    dual = DualClip(band, config.get("clip_ratio_c", 3.0))
    return verl_loss(
        log_prob, old_log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights, Clip(), dual
    )[0]


def done_share(config: Any) -> float:
    """The completed share of verl's training steps, in [0, 1]. Raises ValueError if verl has not set their number."""
    total = int(config.optim.total_training_steps)
    if total < 1:
        raise ValueError(f"actor.optim.total_training_steps is {total}; verl's trainer sets it, flexec needs it")
    scheduler = _engine(config).lr_scheduler
    steps = scheduler.last_epoch if hasattr(scheduler, "last_epoch") else scheduler.num_steps
    return min(int(steps) / total, 1.0)


def _engine(config: Any) -> Any:
    """The engine of the worker of this process whose loss has this configuration; a loss is not told its worker."""
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
