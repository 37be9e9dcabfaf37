"""SkyRL: ppo_utils.py's policy losses with its off-policy corrections, as worker.py calls them.

Its loss is a sum; the advantages come scaled by the reduction, here divided by the tokens of the optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import torch
from parity.batch import Tokens
from parity.compare import Case, Cut, Rows
from parity.source import pull

from entrostat.integrations.losses.skyrl import steered_loss

TOUCHED = {
    "skyrl/backends/skyrl_train/workers/worker.py": (
        "self.policy_loss_fn: Callable = PolicyLossRegistry.get(",
        "def forward_backward(self, data: TrainingInputBatch, loss_fn: Optional[str]=None",
        "current_loss_fn(action_log_probs, old_action_log_probs, advantages, config=loss_config, loss_mask=loss_mask,",
        "if self.cfg.algorithm.use_entropy_loss",
        "entropy * self.cfg.algorithm.entropy_loss_coef",
        "'policy_entropy': entropy.item()",
        "def save_checkpoint(self, ckpt_dir: str",
        "def load_checkpoint(self, ckpt_dir: str",
    ),
    "skyrl/backends/skyrl_train/workers/fsdp/fsdp_worker.py": (
        "class FSDPPolicyWorkerBase(",
        "PolicyWorker = ray.remote(num_gpus=1)(FSDPPolicyWorkerBase)",
    ),
    "skyrl/backends/skyrl_train/workers/megatron/megatron_worker.py": (
        "class MegatronPolicyWorkerBase(",
        "PolicyWorker = ray.remote(num_gpus=1)(MegatronPolicyWorkerBase)",
        "policy_loss_fn=self.policy_loss_fn",
        "self.scheduler: OptimizerParamScheduler",
    ),
    "skyrl/backends/skyrl_train/workers/megatron/megatron_model_wrapper.py": (
        "current_loss_fn(action_log_probs, old_action_log_probs, advantages, config=loss_config, loss_mask=loss_mask,",
        "entropy_for_loss * loss_config.entropy_loss_coef",
        "'policy_entropy': entropy.detach().item()",
    ),
    "skyrl/backends/skyrl_train/distributed/megatron/megatron_strategy.py": ("scheduler.step(1)",),
    "skyrl/train/entrypoints/main_base.py": ("class BasePPOExp", "import CriticWorker, PolicyWorker, RefWorker"),
}
CORRECTION: dict[str, Any] = {
    "tis_ratio_type": None,
    "token_tis_ratio_clip_high": 1.1,
    "sequence_tis_ratio_clip_high": 1.1,
    "sequence_mask_metric": None,
    "geo_mask_high": 1.05,
    "geo_mask_low": 0.95,
    "product_mask_high": 1.3,
    "product_mask_low": 0.7,
    "outlier_token_is_threshold_low": None,
    "outlier_token_is_threshold_high": None,
    "token_mask_is_threshold_low": None,
    "token_mask_is_threshold_high": None,
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "regular": ("regular", {}),
    "dual clip": ("dual_clip", {}),
    "token tis": ("regular", {"tis_ratio_type": "token"}),
    "sequence tis": ("regular", {"tis_ratio_type": "sequence"}),
    "geometric mask": ("regular", {"sequence_mask_metric": "geometric"}),
    "product mask": ("dual_clip", {"sequence_mask_metric": "product", "tis_ratio_type": "token"}),
    "outlier mask": ("regular", {"outlier_token_is_threshold_low": 0.7, "outlier_token_is_threshold_high": 1.3}),
    "token mask": ("regular", {"token_mask_is_threshold_low": 0.8, "token_mask_is_threshold_high": 1.2}),
}


def cases(source: Path) -> Iterator[Case]:
    """A case per setting."""
    utils = source / "skyrl" / "backends" / "skyrl_train" / "utils"
    here = "skyrl.backends.skyrl_train.utils"
    plain = pull(utils / "torch_utils.py", "masked_mean safe_exp_delta", f"{here}.torch_utils")
    given = {
        "masked_mean": plain.masked_mean,
        "safe_exp_delta": plain.safe_exp_delta,
        "Optional": Optional,
        "Tuple": tuple,
        "List": list,
    }
    names = (
        "off_policy_correction_enabled compute_tis_ratio compute_outlier_token_mask compute_token_mask "
        "compute_sequence_mask compute_off_policy_correction apply_off_policy_correction"
    )
    corrections = pull(utils / "off_policy_correction_utils.py", names, f"{here}.off_policy_correction_utils", **given)
    given["apply_off_policy_correction"] = corrections.apply_off_policy_correction
    loss = pull(utils / "ppo_utils.py", "ppo_policy_loss reduce_loss", f"{here}.ppo_utils", **given).ppo_policy_loss
    for name, (kind, changes) in SETTINGS.items():

        def config(low: float, high: float, kind: str = kind, changes: dict[str, Any] = changes) -> Any:
            correction = SimpleNamespace(**{**CORRECTION, **changes})
            thresholds = {"eps_clip_low": low, "eps_clip_high": high, "clip_ratio_c": 3.0}
            return SimpleNamespace(policy_loss_type=kind, off_policy_correction=correction, **thresholds)

        yield Case(
            name,
            "A",
            lambda low, high, config=config: step(loss, config(low, high)),
            lambda steering, config=config: step(steered_loss(loss, steering), config(0.0, 0.0)),
        )


def step(loss: Any, config: Any) -> Any:
    """The worker's call for one micro-batch; ranks are averaged, so it multiplies by their number."""

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[torch.Tensor, dict[str, Any]]:  # noqa: ARG001
        chosen = list(rows)
        found, metrics = loss(
            tokens.logp[chosen],
            tokens.old[chosen],
            tokens.advantages[chosen] / float(tokens.mask.sum()),
            config=config,
            loss_mask=tokens.mask[chosen].float(),
            rollout_logprobs=tokens.sampler[chosen],
        )
        return found * len(cut), metrics

    return one
