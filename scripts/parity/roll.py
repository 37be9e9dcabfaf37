"""ROLL: rlvr/actor_worker.py's ActorWorker.loss_func, with get_old_log_probs_with_cache of its base worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional
from unittest.mock import Mock

import numpy as np
import torch
from parity.batch import Tokens
from parity.compare import HIGH, LOW, STEP, Case, Cut, Rows
from parity.source import pull
from torch import Tensor

import entrostat.integrations.losses.roll as ours
from entrostat.integrations.losses.steering import Steering

TOUCHED = {
    "roll/pipeline/base_worker.py": (
        "def train_step(self, data: DataProto)",
        "self.strategy.train_step(batch=backward_batch, loss_func=self.loss_func)",
    ),
    "roll/distributed/executor/worker.py": ("tp_size: int", "cp_size: int", "self.rank_info = RankInfo("),
    "roll/distributed/strategy/strategy.py": ("def op_compute_entropy(self, logits: torch.Tensor, attention_mask",),
    "roll/pipeline/rlvr/rlvr_pipeline.py": ("batch.meta_info['global_step'] = global_step",),
    "roll/configs/base_config.py": ("output_dir: str", "resume_from_checkpoint"),
}
DEFAULTS: dict[str, Any] = {
    "loss_agg_mode": "seq-mean-token-mean",
    "importance_sampling": "token",
    "use_pg_clip_range": True,
    "pg_clip": 0.2,
    "dual_clip_loss": False,
    "use_kl_loss": False,
    "kl_loss_coef": 0.1,
    "rl_loss_coef": 1.0,
    "entropy_loss_coef": 0.0,
    "difficulty_loss_weight": False,
    "length_loss_weight": False,
    "enable_old_logprobs_recompute": True,
    "ppo_epochs": 2,
}
CACHED = {"enable_old_logprobs_recompute": False}
OURS = ("weights", "filters", "filter")
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "token mean": {"loss_agg_mode": "token-mean"},
    "sequence sum": {"loss_agg_mode": "seq-mean-token-sum"},
    "dual clip": {"dual_clip_loss": True},
    "KL, entropy, rl_loss_coef": {"use_kl_loss": True, "entropy_loss_coef": 0.01, "rl_loss_coef": 0.5},
    "train-infer weights, given": {"weights": "token"},
    "train-infer, tokens": {"weights": "token", "filters": "token", **CACHED},
    "train-infer, sequences": {"weights": "sequence", "filters": "geometric", **CACHED},
    "sample weights, filter": {"length_loss_weight": True, "filter": True},
    "cached old log-probs": CACHED,
}


def cases(source: Path) -> Iterator[Case]:
    """A case per setting."""
    names = "agg_loss masked_mean masked_sum compute_approx_kl log_probs_from_logits entropy_from_logits"
    given = {"Optional": Optional, "Dict": dict, "Tuple": tuple, "np": np}
    functions = pull(source / "roll" / "utils" / "functionals.py", names, "roll.utils.functionals", **given)
    given |= {name: getattr(functions, name) for name in names.split()}
    given["current_platform"] = SimpleNamespace(device_type="cpu")
    base = pull(source / "roll" / "pipeline" / "base_worker.py", "ActorWorker", "roll.pipeline.base_worker",
                Worker=object, register=lambda **_: lambda method: method, Dispatch=Mock(), **given)  # fmt: skip
    agentic = source / "roll" / "pipeline" / "agentic" / "utils.py"
    segments = pull(agentic, "compute_segment_masked_mean", "roll.pipeline.agentic.utils", **given)
    given["compute_segment_masked_mean"] = segments.compute_segment_masked_mean
    names = (
        "_compute_all_granularity _infer_global_valid_samples_from_mask _infer_global_valid_tokens_from_mask "
        "compute_train_infer_correction"
    )
    file = source / "roll" / "utils" / "train_infer_corrections.py"
    corrections = pull(file, names, "roll.utils.train_infer_corrections", **given)
    given["compute_train_infer_correction"] = corrections.compute_train_infer_correction
    file = source / "roll" / "pipeline" / "rlvr" / "actor_worker.py"
    module = pull(file, "ActorWorker", "roll.pipeline.rlvr.actor_worker", BaseActorWorker=base.ActorWorker, **given)
    ours._worker.cache_clear()
    for name, changes in SETTINGS.items():

        def host(low: float, high: float, changes: Any = changes) -> Any:
            return step(build(module.ActorWorker, functions, changes, low, high), changes)

        def steered(steering: Steering, changes: Any = changes) -> Any:
            ours.steering = lambda *_: steering  # type: ignore[assignment]
            return step(build(ours.EntropyActorWorker, functions, changes, 0.2, 0.28), changes)

        def bonus(coefficient: float, changes: Any = changes) -> Any:
            return host(LOW, HIGH, {**changes, "entropy_loss_coef": coefficient})

        yield Case(name, "C", host, steered, bonus=None if "entropy_loss_coef" in changes else bonus)


def build(kind: Any, functions: Any, changes: dict[str, Any], low: float, high: float) -> Any:
    """A worker of ROLL without its processes: settings, cache, and its functions of whole logits."""
    worker = kind.__new__(kind)
    bounds = {"ratio_enabled": True, "ratio_low": 0.8, "ratio_high": 1.2, "diff_enabled": False}
    correction = SimpleNamespace(
        is_weight=SimpleNamespace(
            enabled="weights" in changes, weight_type=changes.get("weights"), upper_bound=1.1, detach=True
        ),
        filters=[SimpleNamespace(enabled=True, agg_type=changes["filters"], **bounds)] if "filters" in changes else [],
    )
    settings = {**DEFAULTS, **{key: value for key, value in changes.items() if key not in OURS}}
    worker.pipeline_config = SimpleNamespace(
        **settings, pg_clip_low=low, pg_clip_high=high, train_infer_correction=correction,
        actor_train=SimpleNamespace(),
    )  # fmt: skip
    worker._logprobs_cache = {}
    worker.rank_info = SimpleNamespace(tp_size=1, cp_size=1)

    def log_probs(logits: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        labels = input_ids[:, 1:].where(attention_mask[:, 1:].bool(), 0)
        return functions.log_probs_from_logits(logits[:, :-1], labels) * attention_mask[:, 1:]  # type: ignore[no-any-return]

    def entropy(logits: Tensor, attention_mask: Tensor) -> Tensor:
        return functions.entropy_from_logits(logits)[:, :-1] * attention_mask[:, 1:]  # type: ignore[no-any-return]

    worker.strategy = SimpleNamespace(op_compute_log_probs=log_probs, op_compute_entropy=entropy)
    return worker


def step(worker: Any, changes: dict[str, Any]) -> Any:
    """A micro-batch with ROLL's counts of the global batch; the first token of a sequence is of no loss."""
    recompute = worker.pipeline_config.enable_old_logprobs_recompute

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[Tensor, dict[str, Any]]:  # noqa: ARG001
        chosen = list(rows)
        mask = tokens.mask[chosen]
        kept = mask & (tokens.rewards[chosen, None] > 0) if "filter" in changes else mask
        every = tokens.mask & (tokens.rewards[:, None] > 0) if "filter" in changes else tokens.mask
        if not recompute:  # an earlier epoch's forward pass, which ROLL has kept
            worker._logprobs_cache |= {row: tokens.old[row : row + 1] for row in rows}
        batch = {
            "input_ids": torch.cat([torch.zeros(len(chosen), 1, dtype=torch.long), tokens.ids[chosen]], 1),
            "response_mask": torch.cat([torch.zeros(len(chosen), 1, dtype=torch.bool), mask], 1),
            "final_response_mask": kept.long(),
            "ref_log_probs": tokens.reference[chosen],
            "old_log_probs": tokens.old[chosen] if recompute else torch.zeros_like(tokens.old[chosen]),
            "infer_logprobs": tokens.sampler[chosen],
            "advantages": tokens.advantages[chosen],
            "train_infer_is_weight": (tokens.old - tokens.sampler)[chosen].exp().clamp(max=1.1),
        }
        counts = {"response_mask": float(tokens.mask.sum()), "final_response_mask": float(every.sum())}
        samples = {"response_mask": float(len(tokens.mask)), "final_response_mask": float(every.any(1).sum())}
        meta = {"batch_num_tokens": counts, "global_valid_samples": samples, "global_step": STEP}
        data = SimpleNamespace(batch=batch, meta_info=meta, non_tensor_batch={"sample_uuid": np.array(rows)})
        logits = tokens.logits[chosen]
        loss, metrics = worker.loss_func(data, torch.cat([logits, torch.zeros_like(logits[:, :1])], 1))
        return loss * len(cut), metrics

    return one
