"""ROLL: actor_train: {worker_cls: entrostat.integrations.losses.roll.EntropyActorWorker}

ROLL's own `ActorWorker.loss_func` runs, reading our thresholds as pipeline_config.pg_clip_low and pg_clip_high: its KL,
dual clip, train-infer correction, sample weights and aggregation are untouched. Tier A. A step is one of its pipeline.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from entrostat.integrations.losses.steering import Overlay, refuse, steering

TIER = "A"


class SteeredLoss:
    """Mixed in before ROLL's ActorWorker. Raises ValueError for a ratio that is not a token's, and without a step."""

    pipeline_config: Any

    def loss_func(self, data: Any, output_tensor: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """ROLL's loss and metrics; the thresholds are set once ROLL has the old log-probabilities."""
        plain = self.pipeline_config
        refuse(
            "ROLL",
            {
                "importance_sampling": (plain.importance_sampling, ("token",)),
                "actor_train.pg_variant": (getattr(plain.actor_train, "pg_variant", None), (None, "ppo")),
            },
        )
        self.pipeline_config = Overlay(plain, use_pg_clip_range=True)
        try:
            answer: tuple[Tensor, dict[str, Any]] = super().loss_func(data, output_tensor)  # type: ignore[misc]
        finally:
            self.pipeline_config = plain
        return answer

    def get_old_log_probs_with_cache(self, data: Any, log_probs: Tensor) -> Tensor:
        """ROLL's own, of this forward pass or an earlier one; the thresholds follow from them."""
        old: Tensor = super().get_old_log_probs_with_cache(data, log_probs)  # type: ignore[misc]
        if "global_step" not in data.meta_info:
            raise ValueError("ROLL: meta_info has no global_step, which is the step of the schedule")
        low, high = steering().thresholds(data.meta_info["global_step"], old)
        self.pipeline_config.__dict__.update(pg_clip_low=low, pg_clip_high=high)
        return old


@cache
def _worker() -> type:
    from roll.pipeline.rlvr.actor_worker import ActorWorker

    return type(
        "EntropyActorWorker", (SteeredLoss, ActorWorker), {"__module__": __name__, "__doc__": "ROLL's actor, steered."}
    )


def __getattr__(name: str) -> Any:
    if name != "EntropyActorWorker":
        raise AttributeError(name)
    return _worker()
