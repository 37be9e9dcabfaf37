"""OpenRLHF: models/loss.py's PolicyLoss and aggregate_loss, with the normalisers that ppo_actor.py passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import torch
from parity.batch import Tokens
from parity.compare import STEP, Case, Cut, Rows
from parity.source import pull

from entrostat.integrations.losses.openrlhf import SteeredPolicyLoss
from entrostat.integrations.losses.steering import Steering

TOUCHED = {
    "openrlhf/cli/train_ppo_ray.py": ("PolicyModelActor",),
    "openrlhf/trainer/ray/ppo_actor.py": (
        "class PolicyModelActor(",
        "def init_model_from_pretrained(",
        "def save_checkpoint(self, tag, client_states=None",
        "self.checkpoint_states = states",
        "self.trainer = ActorPPOTrainer(",
        "self.args = strategy.args",
        "self.actor_loss_fn(action_log_probs, old_action_log_probs, advantages, action_mask=",
        "return_entropy=self.args.actor.entropy_coef is not None",
        "self.actor_scheduler",
    ),
    "openrlhf/models/actor.py": ("class Actor(nn.Module)", "setattr(output, 'entropy', entropy[:, :-1])"),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain, token mean": {},
    "plain, sequence mean": {"token_level_loss": False},
    "dual clip": {"dual_clip": 3.0},
    "tis": {"enable_vllm_is_correction": True, "vllm_is_correction_type": "tis"},
    "icepop": {"enable_vllm_is_correction": True, "vllm_is_correction_type": "icepop"},
    "seq-mask-tis": {"enable_vllm_is_correction": True, "vllm_is_correction_type": "seq-mask-tis"},
}


def cases(source: Path) -> Iterator[Case]:
    """A case per setting."""
    models = source / "openrlhf" / "models"
    utils = pull(models / "utils.py", "masked_mean", "openrlhf.models.utils", Optional=Optional)
    given = {"masked_mean": utils.masked_mean, "Optional": Optional, "Tuple": tuple}
    module = pull(models / "loss.py", "PolicyLoss aggregate_loss", "openrlhf.models.loss", **given)

    def build(settings: dict[str, Any], low: float, high: float) -> Any:
        thresholds = [0.9, 1.1] if settings.get("enable_vllm_is_correction") else None
        return module.PolicyLoss(low, high, vllm_is_truncated_threshold=thresholds, **settings)

    for name, settings in SETTINGS.items():
        yield Case(
            name,
            "B",
            lambda low, high, settings=settings: step(build(settings, low, high)),
            lambda steering, settings=settings: step(steered(build(settings, 0.0, 0.0), steering)),
        )


def steered(host: Any, steering: Steering) -> SteeredPolicyLoss:
    """The host's loss under our control."""
    return SteeredPolicyLoss(host, steering, lambda: STEP, SimpleNamespace(entropy_coef=0))


def step(loss: Any) -> Any:
    """OpenRLHF's training_step of one micro-batch: the normalisers are those of the optimizer step over all ranks."""

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[torch.Tensor, dict[str, Any]]:  # noqa: ARG001
        every = [row for micro_batches in cut for some in micro_batches for row in some]
        chosen = list(rows)
        if isinstance(loss, SteeredPolicyLoss):  # what the actor's forward pass hands to its hook: prompt and responses
            entropy = torch.cat([torch.full((len(rows), 2), torch.nan), tokens.entropy[chosen].detach()], 1)
            loss.keep_entropy(None, None, (None, SimpleNamespace(entropy=entropy)))
        found = loss(
            tokens.logp[chosen],
            tokens.old[chosen],
            tokens.advantages[chosen],
            action_mask=tokens.mask[chosen].float(),
            rollout_log_probs=tokens.sampler[chosen],
            dp_size=len(cut),
            batch_num_tokens=float(tokens.mask[every].sum()),
            global_batch_size=float(len(every)),
        )
        names = ("loss", "ppo_clip_ratio", "ppo_kl", "vllm_kl")
        return found[0], {name: value.detach() for name, value in zip(names, found, strict=True) if value is not None}

    return one
