"""ROLL: actor_train: {worker_cls: entrostat.integrations.losses.roll.EntropyActorWorker}

ROLL's own `ActorWorker.loss_func` runs, reading our thresholds as pipeline_config.pg_clip_low and pg_clip_high, our
weights in its advantages and a bonus as entropy_loss_coef: its KL, dual clip, train-infer correction, sample weights
and aggregation are untouched. Tier C: the statistics are those of the logits of ROLL's own forward pass. A step is one
of its pipeline. A controller that follows the entropy writes its state after every step to
OUTPUT_DIR/entrostat/step_N.json, N the next step, from which a run resumes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import (
    Overlay,
    Steering,
    Tier,
    read_state,
    refuse,
    steering,
    vocabulary_shard,
    write_state,
)
from entrostat.tokens import TokenStats, VocabShard, token_stats

TIER: Tier = "C"
COEFFICIENT = "entropy_loss_coef"


class SteeredLoss:
    """Mixed in before ROLL's ActorWorker. Raises ValueError for a ratio that is not a token's, and without a step."""

    pipeline_config: Any
    strategy: Any

    def loss_func(self, data: Any, output_tensor: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """ROLL's loss and metrics; thresholds and weights are set once ROLL has the old log-probabilities."""
        plain = self.pipeline_config
        refuse(
            "ROLL",
            {
                "importance_sampling": (plain.importance_sampling, ("token",)),
                "actor_train.pg_variant": (getattr(plain.actor_train, "pg_variant", None), (None, "ppo")),
            },
        )
        control = self._control(data)
        changed: dict[str, Any] = {"use_pg_clip_range": True}
        if control.pays:
            refuse("ROLL", {COEFFICIENT: (plain.entropy_loss_coef, (0,))})
            changed[COEFFICIENT] = control.bonus()
        batch = data.batch.copy()
        batch["advantages"] = data.batch["advantages"].clone()
        self.pipeline_config = Overlay(plain, **changed)
        self._advantages, self._logits = batch["advantages"], output_tensor
        try:
            answer: tuple[Tensor, dict[str, Any]] = super().loss_func(Overlay(data, batch=batch), output_tensor)  # type: ignore[misc]
        finally:
            self.pipeline_config = plain
            del self._advantages, self._logits
        return answer

    def get_old_log_probs_with_cache(self, data: Any, log_probs: Tensor) -> Tensor:
        """ROLL's own, of this forward pass or an earlier one; thresholds and weights follow from them."""
        old: Tensor = super().get_old_log_probs_with_cache(data, log_probs)  # type: ignore[misc]
        control, config = self._control(data), self.pipeline_config
        plain = config._base
        own = (plain.pg_clip_low, plain.pg_clip_high) if plain.use_pg_clip_range else (plain.pg_clip, plain.pg_clip)
        low, high = control.thresholds(old, own)
        config.__dict__.update(pg_clip_low=low, pg_clip_high=high)
        responses = data.batch["response_mask"]
        if control.follows:
            entropy = self.strategy.op_compute_entropy(logits=self._logits.detach(), attention_mask=responses)
            control.record(entropy, responses[:, 1:])
        if control.weighs:
            mask = data.batch.get("final_response_mask", responses[:, 1:]).bool()
            refuse("ROLL", {"context parallelism": (self.rank_info.cp_size, (1,))})  # type: ignore[attr-defined]
            stats = statistics(self._logits, data.batch["input_ids"], responses, self._shard())
            sampler = data.batch.get("infer_logprobs", old)
            factors = control.weights(stats, self._advantages, mask, old, sampler if len(sampler) else old)
            self._advantages.mul_(factors)
        return old

    def _control(self, data: Any) -> Steering:
        if "global_step" not in data.meta_info:
            raise ValueError("ROLL: meta_info has no global_step, which is the step of the controller")
        return steering(TIER, COEFFICIENT)

    def _shard(self) -> VocabShard | None:
        if self.rank_info.tp_size == 1:  # type: ignore[attr-defined]
            return None
        from megatron.core import mpu

        return vocabulary_shard(self._logits.shape[-1], mpu.get_tensor_model_parallel_group())


@torch.no_grad()
def statistics(logits: Tensor, input_ids: Tensor, responses: Tensor, shard: VocabShard | None) -> TokenStats:
    """The statistics of every token but the first, (B, S - 1); logits (B, S, V), responses (B, S) the mask.

    Outside the responses they are those of token 0, as ROLL's own log-probabilities are.
    """
    labels = input_ids[:, 1:].where(responses[:, 1:].bool(), 0)
    return token_stats(logits.detach()[:, :-1], labels, shard=shard)


def train_step(plain: Any) -> Any:
    """ROLL's train_step; the controller's steps begin on every rank, and its state is written after each."""

    @functools.wraps(plain)
    def step(self: Any, data: Any) -> Any:
        control, number, config = self._control(data), data.meta_info["global_step"], self.pipeline_config
        resumed = getattr(config, "resume_from_checkpoint", None)
        if control.follows and control.step is None and number > 0 and resumed:
            folders = (config.output_dir, resumed if isinstance(resumed, str) else None)
            control.load_state_dict(read_state("ROLL", folders, number))
        control.begin_step(number)
        answer = plain(self, data)
        if control.follows:
            control.begin_step(number + 1)
            write_state(config.output_dir, control)
        return answer

    return step


@functools.cache
def _worker() -> type:
    from roll.pipeline.rlvr.actor_worker import ActorWorker

    members = {
        "train_step": train_step(ActorWorker.train_step),
        "__module__": __name__,
        "__doc__": "ROLL's actor, steered.",
    }
    return type("EntropyActorWorker", (SteeredLoss, ActorWorker), members)


def __getattr__(name: str) -> Any:
    if name != "EntropyActorWorker":
        raise AttributeError(name)
    return _worker()
