"""Policy losses with fixed clip rules for verl's registry: no code from the user, one key.

    actor_rollout_ref.actor.policy_loss.loss_mode=entrostat_raise

Each has verl's signature, leaves the aggregation to verl and, like verl's own "vanilla", clips punished tokens above
clip_ratio_c. `{low}` and `{high}` are verl's clip_ratio_low and clip_ratio_high. Tier A.
    entrostat_clip      the constant band {low}, {high}: vanilla, by our code
    entrostat_raise     upper threshold -.25 p + .5, lower {low}: raises entropy (arXiv 2602.09782)
    entrostat_lower     upper {high}, lower threshold -.13 p + .3: lowers entropy (arXiv 2602.09782)
    entrostat_dppo      abs(pi - pi_old) <= {high} (arXiv 2602.04879)
    entrostat_dcpo      DCPO's band, {low} and {high} in place of .16 and .2 (arXiv 2509.02333)
    entrostat_abc       ABC-GRPO, {high} and {low} for A > 0 and for A < 0 (arXiv 2601.03895)
    entrostat_ce_gppo   the constant band with a bounded gradient beyond it (arXiv 2509.20712)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from entrostat.control.strategies import LOWER, UPPER
from entrostat.integrations.verl import refuse_trl_beside_verl
from entrostat.objective import (
    AbcClip,
    CeGppo,
    Cispo,
    Clip,
    ClipBand,
    ClipRule,
    DcpoClip,
    DppoClip,
    DualClip,
    Gspo,
    LinearThreshold,
    Objective,
    PolicyLoss,
    Reinforce,
    Sapo,
    policy_loss,
)

Answer = tuple[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class LossCall:
    """The arguments with which verl calls a policy loss, in its order; tensors (B, T)."""

    old_log_prob: Tensor
    log_prob: Tensor
    advantages: Tensor
    response_mask: Tensor
    loss_agg_mode: str = "token-mean"
    config: Any = None
    rollout_is_weights: Tensor | None = None

    def passed_to(self, loss: Callable[..., Answer]) -> Answer:
        """What a loss of verl's registry returns for them."""
        return loss(*(getattr(self, field.name) for field in fields(self)))

    def aggregated(self, per_token: Tensor) -> Tensor:
        """verl's `agg_loss` over its global batch, so that it does not depend on micro-batches and ranks."""
        from verl.trainer.ppo.core_algos import agg_loss

        mask = self.response_mask.bool()
        loss: Tensor = agg_loss(per_token, mask, self.loss_agg_mode, **self.config.global_batch_info)
        return loss


Method = Callable[[float, float], tuple[Objective, ClipBand]]
MOST_LOG_RATIO = 20.0  # verl's own limit, so that a ratio cannot overflow

_constant = LinearThreshold.constant

METHODS: Mapping[str, Method] = {
    "entrostat_clip": lambda low, high: (Clip(), ClipRule.constant(low, high)),
    "entrostat_raise": lambda low, high: (Clip(), ClipRule(UPPER, _constant(low))),  # noqa: ARG005
    "entrostat_lower": lambda low, high: (Clip(), ClipRule(_constant(high), LOWER)),  # noqa: ARG005
    "entrostat_dppo": lambda low, high: (Clip(), DppoClip(high)),  # noqa: ARG005
    "entrostat_dcpo": lambda low, high: (Clip(), DcpoClip(low, high)),
    "entrostat_abc": lambda low, high: (Clip(), AbcClip(high, low, high, low)),
    "entrostat_ce_gppo": lambda low, high: (CeGppo(), ClipRule.constant(low, high)),
}


def register_losses() -> tuple[str, ...]:
    """Put every method into verl's registry of policy losses; returns their names."""
    from verl.trainer.ppo.core_algos import register_policy_loss

    for name, method in METHODS.items():
        register_policy_loss(name)(fixed_loss(name, method))
    return tuple(METHODS)


def fixed_loss(name: str, method: Method) -> Callable[..., Answer]:
    """verl's policy-loss function of one method."""

    def loss(*args: Any, **kwargs: Any) -> Answer:
        refuse_trl_beside_verl()
        call = LossCall(*args, **kwargs)
        objective, band = method(*thresholds(call.config))
        if type(band).limits is ClipBand.limits:
            band = DualClip(band, call.config.get("clip_ratio_c", 3.0))
        return verl_loss(call, objective, band)[0]

    loss.__name__ = name
    return loss


def thresholds(config: Any) -> tuple[float, float]:
    """verl's lower and upper clip width; either falls back on clip_ratio."""
    low, high = config.clip_ratio_low, config.clip_ratio_high
    return (config.clip_ratio if low is None else low), (config.clip_ratio if high is None else high)


AGGREGATIONS = {  # of a recipe, and verl's loss_agg_mode
    "token-mean": "token-mean",
    "sequence-mean": "seq-mean-token-mean",
    "sequence-sum": "seq-mean-token-sum",
    "constant": "seq-mean-token-sum-norm",
}
NO_LIMIT = 1e9  # a clip width that no ratio reaches
VERLS_NAMES: Mapping[type[Objective], str] = {Clip: "vanilla", Cispo: "cispo", Gspo: "gspo"}


def verls_own(
    objective: Objective, band: ClipBand, old_log_prob: Tensor, kl_cov: tuple[float, float] | None = None
) -> tuple[str, dict[str, Any]] | None:
    """verl's own loss that computes the objective under the band, and what is changed in its configuration.

    The thresholds are those of every token, (B, T), or of every sequence, (B, 1). Reinforce is vanilla without limits.
    kl_cov: (share, coefficient) of KL-Cov's term. None: verl has no such loss, and ours has to run.
    """
    if isinstance(objective, Reinforce):
        if kl_cov is not None:
            share, coefficient = kl_cov
            return "kl_cov", {"policy_loss": SimpleNamespace(kl_cov_ratio=share, ppo_kl_coef=coefficient)}
        return "vanilla", dict.fromkeys(("clip_ratio_low", "clip_ratio_high", "clip_ratio_c"), NO_LIMIT)
    if isinstance(objective, Sapo):
        return "sapo", {"tau_pos": objective.tau_rewarded, "tau_neg": objective.tau_punished}
    if type(objective) not in VERLS_NAMES or type(band).limits is not ClipBand.limits:
        return None
    low, high = band.bounds(old_log_prob[:, :1] if isinstance(objective, Gspo) else old_log_prob)
    return VERLS_NAMES[type(objective)], {"clip_ratio_low": 1 - low, "clip_ratio_high": high - 1}


def changed(config: Any, **values: Any) -> Any:
    """A copy of verl's configuration, which is frozen and of a class that its losses insist on, with other values."""
    own = copy.copy(config)
    for name, value in values.items():
        object.__setattr__(own, name, value)
    return own


def verl_loss(call: LossCall, objective: Objective, band: ClipBand) -> tuple[Answer, PolicyLoss | None]:
    """(loss, metrics) in verl's form, and the loss of every token.

    A micro-batch without a token gives a zero that the gradient flows through, and None.
    """
    mask, log_prob = call.response_mask.bool(), call.log_prob
    if not bool(mask.any()):
        return ((log_prob * 0).sum(), {}), None
    bounded = call.old_log_prob.clamp(log_prob.detach() - MOST_LOG_RATIO, log_prob.detach() + MOST_LOG_RATIO)
    out = policy_loss(log_prob, bounded, call.advantages, mask, rule=band, objective=objective)
    per_token = out.per_token if call.rollout_is_weights is None else out.per_token * call.rollout_is_weights
    return (call.aggregated(per_token), clip_metrics(call, out)), out


@torch.no_grad()
def clip_metrics(call: LossCall, out: PolicyLoss) -> dict[str, float]:
    """The metrics of verl's vanilla loss: shares of tokens clipped by the band and by clip_ratio_c, and the k1 KL."""
    dual = out.clipped_high & (call.advantages < 0)
    band = (out.clipped_low | out.clipped_high) & ~dual
    return {
        "actor/pg_clipfrac": band[out.mask].double().mean().item(),
        "actor/pg_clipfrac_lower": dual[out.mask].double().mean().item(),
        "actor/ppo_kl": (call.old_log_prob - call.log_prob)[out.mask].double().mean().item(),
    }
