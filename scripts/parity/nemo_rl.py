"""NeMo RL: loss_functions.py's ClippedPGLossFn with calculate_kl, masked_mean and prepare_loss_input of its own."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import torch
from parity.batch import Tokens
from parity.compare import Case, Cut, Rows
from parity.source import pull
from torch import Tensor

from entrostat.integrations.losses.nemo_rl import ENTROPY, TOKENS, SteeredLoss

TOUCHED = {
    "nemo_rl/models/policy/lm_policy.py": ("def train(self, data", "self.cfg = config", "['all_mb_metrics']"),
    "nemo_rl/models/policy/tq_policy.py": ("def train_from_meta(",),
    "nemo_rl/algorithms/grpo.py": (
        "grpo_save_state.total_steps = total_steps + 1",
        "vars(grpo_save_state)",
        "metrics.update(train_results['all_mb_metrics'])",
    ),
    "nemo_rl/algorithms/loss/interfaces.py": ("LOGIT = 'logit'",),
    "nemo_rl/algorithms/loss/wrapper.py": ("self.prepare_fn(logits=next_token_logits_slice",),
    "nemo_rl/utils/checkpoint.py": ("def get_latest_checkpoint_path(self)", "def load_training_info(self"),
}
DEFAULTS: dict[str, Any] = {
    "disable_ppo_ratio": False,
    "token_level_loss": True,
    "sequence_level_importance_ratios": False,
    "ratio_clip_c": None,
    "reference_policy_kl_penalty": 0.01,
    "reference_policy_kl_type": "k3",
    "kl_input_clamp_value": 20.0,
    "kl_output_clamp_value": 10.0,
    "use_kl_in_reward": False,
    "use_importance_sampling_correction": False,
    "truncated_importance_sampling_type": None,
    "truncated_importance_sampling_ratio": None,
    "truncated_importance_sampling_ratio_min": None,
    "use_on_policy_kl_approximation": False,
    "force_on_policy_ratio": False,
    "use_cispo": False,
    "positive_example_nll_weight": 0.0,
}
IS = {"use_importance_sampling_correction": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain with KL": {},
    "sequence mean": {"token_level_loss": False},
    "dual clip": {"ratio_clip_c": 3.0},
    "importance correction": IS,
    "tis": {**IS, "truncated_importance_sampling_type": "tis", "truncated_importance_sampling_ratio": 1.1},
    "icepop": {
        **IS,
        "truncated_importance_sampling_type": "icepop",
        "truncated_importance_sampling_ratio": 1.1,
        "truncated_importance_sampling_ratio_min": 0.9,
    },
    "seq-mask-tis": {
        **IS,
        "truncated_importance_sampling_type": "seq-mask-tis",
        "truncated_importance_sampling_ratio": 1.05,
        "truncated_importance_sampling_ratio_min": 0.95,
    },
    "on-policy KL, positive NLL": {"use_on_policy_kl_approximation": True, "positive_example_nll_weight": 0.1},
}


def cases(source: Path) -> Iterator[Case]:
    """A case per setting."""
    algorithms = source / "nemo_rl" / "algorithms"
    utils = pull(algorithms / "utils.py", "calculate_kl masked_mean", "nemo_rl.algorithms.utils", Optional=Optional)
    kinds = {
        "LossType": Enum("LossType", "TOKEN_LEVEL SEQUENCE_LEVEL"),
        "LossInputType": Enum("LossInputType", "LOGPROB LOGIT"),
        "MetricNormalizer": Enum("MetricNormalizer", "TOKENS SEQUENCES NONE"),
    }
    given = {"calculate_kl": utils.calculate_kl, "masked_mean": utils.masked_mean, "LossFunction": object, **kinds}
    module = pull(algorithms / "loss" / "loss_functions.py", "ClippedPGLossFn", "nemo_rl.algorithms.loss", **given)
    given["need_top_k_or_top_p_filtering"] = lambda sampling: False
    given["get_next_token_logprobs_from_logits"] = next_token_logprobs
    inputs = pull(algorithms / "loss" / "utils.py", "prepare_loss_input", "nemo_rl.algorithms.loss.utils", **given)

    def build(changes: dict[str, Any], low: float, high: float) -> Any:
        settings = {**DEFAULTS, **changes, "ratio_clip_min": low, "ratio_clip_max": high}
        return module.ClippedPGLossFn(SimpleNamespace(**settings))

    for name, changes in SETTINGS.items():
        yield Case(
            name,
            "C",
            lambda low, high, changes=changes: step(inputs, build(changes, low, high)),
            lambda steering, changes=changes: step(inputs, SteeredLoss(build(changes, 0.0, 0.0), steering)),
        )


def next_token_logprobs(input_ids: Tensor, next_token_logits: Tensor, **_: Any) -> Tensor:
    """ln p of every token but the first, which the host computes on a GPU."""
    return next_token_logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)


def step(inputs: Any, loss: Any) -> Any:
    """A micro-batch with the counts of the global batch; the first token of a sequence is of no loss."""

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[Tensor, dict[str, Any]]:  # noqa: ARG001
        chosen = list(rows)

        def whole(values: Tensor) -> Tensor:
            return torch.cat([torch.zeros(len(values), 1), values.float()], 1)

        logits = tokens.logits[chosen]
        logits = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)
        data = {
            "input_ids": whole(tokens.ids[chosen]).long(),
            "token_mask": whole(tokens.mask[chosen]),
            "sample_mask": torch.ones(len(chosen)),
            "advantages": whole(tokens.advantages[chosen]),
            "prev_logprobs": whole(tokens.old[chosen]),
            "generation_logprobs": whole(tokens.sampler[chosen]),
            "reference_policy_logprobs": whole(tokens.reference[chosen]),
            "rewards": tokens.rewards[chosen],
        }
        prepared, data = inputs.prepare_loss_input(logits, data, loss)
        found, metrics = loss(
            data=data,
            global_valid_seqs=torch.tensor(float(len(tokens.mask))),
            global_valid_toks=tokens.mask.sum().float(),
            **prepared,
        )
        if ENTROPY in metrics:
            loss.control.add(metrics.pop(ENTROPY), metrics.pop(TOKENS))
        return found * len(cut), metrics

    return one
