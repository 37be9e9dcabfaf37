"""ROLL: actor_train.worker_cls: entrostat.integrations.roll.EntropyActorWorker

ROLL calls worker.loss_func(data, output_tensor) -> (loss, metrics); data.batch: input_ids and response_mask (B, S);
old_log_probs, advantages (B, S - 1). The output is the logits (B, S, V), of which the worker's strategy makes ln p.
Tier A.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from entrostat.integrations.packed import Schedule, clip_fraction

TIER = "A"
SCHEDULE = Schedule()


def loss_func(worker: Any, data: Any, output_tensor: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The clipped loss under `SCHEDULE`, aggregated by ROLL's own function and mode."""
    from roll.utils.functionals import agg_loss

    batch = data.batch
    mask = batch["response_mask"][:, 1:].long()
    mask = batch.get("final_response_mask", mask)
    logp = worker.strategy.op_compute_log_probs(
        logits=output_tensor, input_ids=batch["input_ids"], attention_mask=batch["response_mask"]
    )
    out = SCHEDULE.loss(logp, batch["old_log_probs"], batch["advantages"], mask)
    per_token = logp * 0 if out is None else out.per_token
    loss = agg_loss(loss_mat=per_token, loss_mask=mask, loss_agg_mode=worker.pipeline_config.loss_agg_mode)
    return loss, {"actor/pg_loss": loss.detach().item(), "actor/ppo_ratio_clipfrac": clip_fraction(out, mask).item()}


def __getattr__(name: str) -> Any:
    if name != "EntropyActorWorker":
        raise AttributeError(name)
    from roll.pipeline.rlvr.actor_worker import ActorWorker

    return type(name, (ActorWorker,), {"loss_func": loss_func, "__doc__": "ROLL's actor under `SCHEDULE`."})
