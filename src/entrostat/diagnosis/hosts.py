"""The trainers whose logs are read: their names, how their logs are told, and what they call a setting.

A remedy names a knob; the table says what it is called where the reader of a log can turn it. Keys are those of the
hosts' releases of August 2026. A host without a key for a knob has none that does the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

HOSTS: Mapping[str, str] = {
    "recipe": "recipe",
    "trl": "TRL",
    "verl": "verl",
    "openrlhf": "OpenRLHF",
    "slime": "slime",
    "prime-rl": "prime-rl",
    "skyrl": "SkyRL",
    "nemo-rl": "NeMo RL",
    "areal": "AReaL",
    "roll": "ROLL",
    "tinker": "Tinker",
    "ms-swift": "ms-swift",
}
"""Host -> its own name; `recipe` is a recipe of ours."""

MARKS: Mapping[str, tuple[str, ...]] = {  # host -> beginnings of names that it alone logs under; the first that fits
    "recipe": ("select", "groups."),
    "openrlhf": ("actor_grad_norm", "ent_loss", "act_loss", "vllm_kl", "train/actor_grad_norm"),
    "slime": ("rollout/raw_reward", "train/entropy_loss", "raw_reward", "rollout/response_len"),
    "prime-rl": ("mismatch_kl", "entropy/all", "reward/all", "is_truncated"),
    "skyrl": ("policy/", "reward/avg_raw_reward", "generate/"),
    "nemo-rl": ("approx_entropy", "mean_gen_tokens_per_sample", "gen_kl_error", "train/approx_entropy"),
    "areal": ("ppo_actor/", "grpo_actor/"),
    "tinker": ("env/", "optim/", "progress/"),
    "ms-swift": ("entropy/mean", "rollout_correction/"),
    "trl": (
        "completions/",
        "completions / ",
        "clip_ratio/",
        "frac_reward_zero_std",
        "eval_reward",
        "completion_length",
    ),
    "verl": ("actor/", "critic/", "val-core/", "response_length/"),
}

_ACTOR = "actor_rollout_ref.actor."

KNOBS: Mapping[str, Mapping[str, str]] = {
    "rate": {
        "recipe": "update.learning_rate",
        "trl": "learning_rate",
        "verl": _ACTOR + "optim.lr",
        "openrlhf": "--actor.adam.lr",
        "slime": "--lr",
        "prime-rl": "trainer.optim.lr",
        "skyrl": "trainer.policy.optimizer_config.lr",
        "nemo-rl": "policy.optimizer.kwargs.lr",
        "areal": "actor.optimizer.lr",
        "roll": "actor_train.training_args.learning_rate",
        "tinker": "learning_rate",
        "ms-swift": "--learning_rate",
    },
    "passes": {
        "recipe": "update.epochs",
        "trl": "num_iterations",
        "verl": _ACTOR + "ppo_epochs",
        "openrlhf": "--train.max_epochs",
        "slime": "--num-steps-per-rollout",
        "skyrl": "trainer.update_epochs_per_batch",
        "areal": "actor.ppo_n_minibatches",
        "roll": "ppo_epochs",
        "tinker": "num_substeps",
        "ms-swift": "--num_iterations",
    },
    "lag": {
        "verl": "async_training.staleness_threshold",
        "prime-rl": "orchestrator.max_off_policy_steps",
        "skyrl": "trainer.fully_async.max_staleness_steps",
        "nemo-rl": "grpo.async_grpo.max_trajectory_age_steps",
        "areal": "rollout.max_head_offpolicyness",
        "roll": "async_generation_ratio",
        "tinker": "async_config.max_steps_off_policy",
    },
    "clip_high": {
        "trl": "epsilon_high",
        "verl": _ACTOR + "clip_ratio_high",
        "slime": "--eps-clip-high",
        "skyrl": "trainer.algorithm.eps_clip_high",
        "nemo-rl": "loss_fn.ratio_clip_max",
        "areal": "actor.eps_clip_higher",
        "roll": "pg_clip_high",
        "ms-swift": "--epsilon_high",
    },
    "clip_low": {
        "trl": "epsilon",
        "verl": _ACTOR + "clip_ratio_low",
        "slime": "--eps-clip",
        "skyrl": "trainer.algorithm.eps_clip_low",
        "nemo-rl": "loss_fn.ratio_clip_min",
        "areal": "actor.eps_clip",
        "roll": "pg_clip_low",
        "ms-swift": "--epsilon",
    },
    "bonus": {
        "trl": "entropy_coef",
        "verl": _ACTOR + "entropy_coeff",
        "openrlhf": "--actor.entropy_coef",
        "slime": "--entropy-coef",
        "skyrl": "trainer.algorithm.entropy_loss_coef",
        "roll": "entropy_loss_coef",
    },
    "kl": {
        "trl": "beta",
        "verl": _ACTOR + "kl_loss_coef",
        "openrlhf": "--algo.kl.init_coef",
        "slime": "--kl-loss-coef",
        "skyrl": "trainer.algorithm.kl_loss_coef",
        "nemo-rl": "loss_fn.reference_policy_kl_penalty",
        "areal": "actor.kl_ctl",
        "roll": "kl_loss_coef",
        "tinker": "kl_penalty_coef",
        "ms-swift": "--beta",
    },
    "samples": {
        "recipe": "rollout.samples",
        "trl": "num_generations",
        "verl": "actor_rollout_ref.rollout.n",
        "openrlhf": "--rollout.n_samples_per_prompt",
        "slime": "--n-samples-per-prompt",
        "prime-rl": "orchestrator.group_size",
        "skyrl": "generator.n_samples_per_prompt",
        "nemo-rl": "grpo.num_generations_per_prompt",
        "areal": "gconfig.n_samples",
        "roll": "num_return_sequences_in_group",
        "tinker": "group_size",
        "ms-swift": "--num_generations",
    },
    "longest": {
        "recipe": "rollout.max_new_tokens",
        "trl": "max_completion_length",
        "verl": "data.max_response_length",
        "openrlhf": "--rollout.max_new_tokens",
        "slime": "--rollout-max-response-len",
        "prime-rl": "orchestrator.train.sampling.max_completion_tokens",
        "skyrl": "generator.sampling_params.max_generate_length",
        "nemo-rl": "policy.max_total_sequence_length",
        "areal": "gconfig.max_new_tokens",
        "roll": "response_length",
        "tinker": "max_tokens",
        "ms-swift": "--max_completion_length",
    },
    "grad_norm": {
        "recipe": "update.max_grad_norm",
        "trl": "max_grad_norm",
        "verl": _ACTOR + "grad_clip",
        "openrlhf": "--actor.max_norm",
        "slime": "--clip-grad",
        "prime-rl": "trainer.optim.max_norm",
        "skyrl": "trainer.policy.optimizer_config.max_grad_norm",
        "nemo-rl": "policy.max_grad_norm",
        "areal": "actor.optimizer.gradient_clipping",
        "roll": "actor_train.training_args.max_grad_norm",
        "ms-swift": "--max_grad_norm",
    },
}


def turned(**knobs: Any) -> dict[str, dict[str, Any]]:
    """Settings that turn these knobs to these values, for each host that has all of them."""
    able = set.intersection(*(set(KNOBS[knob]) for knob in knobs)) if knobs else set()
    return {
        host: nested({KNOBS[knob][host]: value for knob, value in knobs.items()}, host)
        for host in HOSTS
        if host in able
    }


def nested(keys: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Dotted keys as sections for a recipe of ours; as they are for other hosts."""
    if host != "recipe":
        return dict(keys)
    sections: dict[str, Any] = {}
    for key, value in keys.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return sections


def host_of(columns: Iterable[str]) -> str | None:
    """The host whose settings the reader of a log can change, by its columns; None where they do not tell."""
    names = [prefix_free for name in columns for prefix_free in {name, name.removeprefix("train/")}]
    return next((host for host, marks in MARKS.items() if any(name.startswith(marks) for name in names)), None)


def shown_hosts(host: str | None) -> tuple[str, ...]:
    """Whose settings a reader is shown: of the host that wrote the log; ours and two more where that is unknown."""
    return (host,) if host else ("recipe", "trl", "verl")


def as_text(changes: Mapping[str, Any], host: str) -> str:
    """Changes as the host reads them: YAML, arguments of GRPOConfig, options or overrides; empty for no changes."""
    if not changes:
        return ""
    if host == "recipe":
        import yaml  # what reads a log needs none

        return yaml.safe_dump(dict(changes), sort_keys=False).rstrip()
    if host == "trl":
        return "GRPOConfig(" + ", ".join(f"{key}={value!r}" for key, value in changes.items()) + ")"
    return " ".join(_option(key, value) for key, value in changes.items())


def _option(key: str, value: Any) -> str:
    if not key.startswith("--"):
        return f"{key}={json.dumps(value)}"
    return key if value is True else f"{key} {value}"
