"""slime: loss.py's policy_loss_function with its reducers, corrections and context parallelism.

Log-probabilities and entropy stand for its forward pass; a context-parallel rank holds its two chunks of each sequence.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from parity.batch import Tokens
from parity.compare import HIGH, LOW, STEP, Case, Cut, Rows
from parity.source import pull
from torch import Tensor

import entrostat.integrations.losses.slime as ours
from entrostat.integrations.losses.steering import Steering

TOUCHED = {
    "slime/backends/megatron_utils/model.py": (
        "custom_before_train_step_hook(args, rollout_id, step_id, model, optimizer, opt_param_scheduler)",
    ),
    "slime/backends/megatron_utils/loss.py": (
        "mpu.get_tensor_model_parallel_group()",
        "with_entropy_grad = with_entropy and getattr(args, 'entropy_coef', 0.0) != 0",
    ),
}
PROMPT = 3
DEFAULTS: dict[str, Any] = {
    "rollout_temperature": 1.0,
    "allgather_cp": False,
    "advantage_estimator": "grpo",
    "eps_clip_c": None,
    "use_rollout_logprobs": False,
    "use_opsm": False,
    "opsm_delta": 1e-3,
    "use_tis": False,
    "tis_clip": 1.1,
    "tis_clip_low": 0.9,
    "get_mismatch_metrics": False,
    "custom_tis_function_path": None,
    "calculate_per_token_loss": False,
    "entropy_coef": 0.0,
    "use_kl_loss": False,
    "use_unbiased_kl": False,
    "kl_loss_type": "low_var_kl",
    "kl_loss_coef": 0.1,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "entropy": {"entropy_coef": 0.01},
    "per-token loss": {"calculate_per_token_loss": True},
    "dual clip": {"eps_clip_c": 3.0},
    "tis": {"use_tis": True},
    "icepop": {"use_tis": True, "custom_tis_function_path": "icepop_function"},
    "mismatch metrics": {"get_mismatch_metrics": True},
    "unbiased KL": {"use_kl_loss": True, "use_unbiased_kl": True},
    "tis, KL and OPSM": {"use_tis": True, "use_kl_loss": True, "use_opsm": True},
    "rollout log-probs": {"use_rollout_logprobs": True},
    "no old log-probs": {"recomputed": True},
}

Forward = Callable[..., dict[str, list[Tensor]]]


class Parallel:
    """What a rank is told of context parallelism, and the sequences of its forward pass."""

    rank, size = 0, 1
    forward: dict[str, list[Tensor]]


def cases(source: Path) -> Iterator[Case]:
    """Every setting on one rank, and those without a whole-sequence term over two context-parallel ranks."""
    parallel = Parallel()
    mpu = SimpleNamespace(
        get_context_parallel_rank=lambda: parallel.rank,
        get_context_parallel_world_size=lambda: parallel.size,
        get_context_parallel_group=lambda: None,
        get_tensor_model_parallel_group=lambda: None,
    )
    backend = source / "slime" / "backends" / "megatron_utils"
    names = "get_logits_and_tokens_offset_with_cp get_sum_of_sample_mean all_gather_with_cp"
    cp = pull(backend / "cp_utils.py", names, "slime.backends.megatron_utils.cp_utils", mpu=mpu, Callable=Callable)
    names = "compute_approx_kl compute_opsm_mask compute_gspo_kl compute_policy_loss compute_cispo_loss"
    maths = pull(source / "slime" / "utils" / "ppo_utils.py", names, "slime.utils.ppo_utils", Namespace=Namespace)
    names = "policy_loss_function vanilla_tis_function icepop_function get_responses"
    module = pull(
        backend / "loss.py",
        names,
        ours.LOSS,
        **{name: value for pulled in (cp, maths) for name, value in vars(pulled).items() if not name.startswith("__")},
        Iterator=Iterator,
        load_function=lambda name: getattr(module, name),
        get_log_probs_and_entropy=lambda logits, **_: (None, parallel.forward),
        get_rollout_top_p_logprob_kwargs=lambda args, batch: {},
        _maybe_capture_log_probs=lambda batch, log_probs: None,
    )
    yield from both(parallel, cp, module.policy_loss_function, ours.loss_function, get_sum_of_sample_mean(cp))


def get_sum_of_sample_mean(cp: Any) -> Callable[..., Any]:
    """slime's reducer by one signature: (total lengths, response lengths, masks, denominators, per token)."""
    return cp.get_sum_of_sample_mean  # type: ignore[no-any-return]


def both(
    parallel: Parallel, cp: Any, plain: Callable[..., Any], steered: Callable[..., Any], reducer: Callable[..., Any]
) -> Iterator[Case]:
    """The cases of slime, and of its fork."""
    for size in (1, 2):
        for name, changes in SETTINGS.items():
            if size == 2 and changes.get("use_opsm"):
                continue  # it gathers whole sequences over a process group
            args = {**DEFAULTS, **{key: value for key, value in changes.items() if key != "recomputed"}}

            def host(low: float, high: float, args: Any = args, changes: Any = changes, size: int = size) -> Any:
                settings = Namespace(**args, eps_clip=low, eps_clip_high=high, **MILES)
                return step(parallel, cp, reducer, plain, settings, changes, size)

            def under(steering: Steering, args: Any = args, changes: Any = changes, size: int = size) -> Any:
                ours.steering = lambda *_: steering  # type: ignore[assignment]
                ours._rollout = STEP
                settings = Namespace(**args, eps_clip=0.2, eps_clip_high=0.28, **MILES)
                return step(parallel, cp, reducer, steered, settings, changes, size)

            def bonus(coefficient: float, host: Any = host, args: Any = args) -> Any:
                return host(LOW, HIGH, {**args, "entropy_coef": coefficient})

            suffix = f", CP {size}" if size > 1 else ""
            paid = None if args["entropy_coef"] else bonus
            yield Case(name + suffix, "C", host, under, clips="recomputed" not in changes, bonus=paid)


MILES = {  # settings that the fork alone reads
    "skip_actor_forward_only": False,
    "observe_training_entropy": True,
    "qkv_format": "thd",
    "true_on_policy_mode": False,
    "custom_pg_loss_reducer_function_path": None,
}


def step(
    parallel: Parallel,
    cp: Any,
    reducer: Callable[..., Any],
    loss: Callable[..., Any],
    args: Any,
    changes: Any,
    size: int,
) -> Any:
    """A micro-batch on every context-parallel rank; what they return adds up, as Megatron adds their gradients."""

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[Tensor, dict[str, Any]]:  # noqa: ARG001
        whole = {
            name: [getattr(tokens, name)[row, : int(tokens.mask[row].sum())] for row in rows]
            for name in ("logp", "entropy", "logits", "ids", "old", "sampler", "reference", "advantages", "mask")
        }
        lengths = [len(part) for part in whole["mask"]]
        totals = [length + PROMPT for length in lengths]
        total, seen = torch.zeros(()), {}
        for parallel.rank in range(size):
            parallel.size = size
            local = {
                name: [_local(cp, part, size) for part in parts]
                for name, parts in whole.items()
                if name not in ("mask", "logits", "ids")
            }
            parallel.forward = {"log_probs": local["logp"], "entropy": local["entropy"]}
            logits = torch.cat([_local_logits(cp, part, size, parallel.rank) for part in whole["logits"]])[None]
            batch = {
                "advantages": local["advantages"],
                "rollout_log_probs": local["old" if args.use_rollout_logprobs else "sampler"],
                "log_probs": local["old"],
                "ref_log_probs": local["reference"],
                "response_lengths": lengths,
                "total_lengths": totals,
                "loss_masks": [part.int() for part in whole["mask"]],
                "unconcat_tokens": [torch.cat([torch.zeros(PROMPT, dtype=torch.long), part]) for part in whole["ids"]],
                "rollout_mask_sums": [part.sum() for part in whole["mask"]],
            }
            if "recomputed" in changes:
                del batch["log_probs"]
                args.skip_actor_forward_only = True
            mean = reducer(
                totals, lengths, batch["loss_masks"], batch["rollout_mask_sums"], args.calculate_per_token_loss
            )
            found, metrics = loss(args, batch, logits, mean)
            scale = float(tokens.mask.sum()) if args.calculate_per_token_loss else len(tokens.mask)
            total = total + found / scale * len(cut)
            seen |= {f"{name}, rank {parallel.rank}": value for name, value in metrics.items()}
        return total, seen

    return one


def _local(cp: Any, part: Tensor, size: int) -> Tensor:
    """A rank's two chunks of a sequence's response, by the host's own offsets."""
    if size == 1:
        return part
    _, _, _, offsets = cp.get_logits_and_tokens_offset_with_cp(len(part) + PROMPT, len(part))
    return torch.cat([part[max(begin - PROMPT, 0) : max(end - PROMPT, 0)] for begin, end in offsets])


def _local_logits(cp: Any, part: Tensor, size: int, rank: int) -> Tensor:
    """A rank's two chunks of the logits (S, V) of a sequence, whose last PROMPT - 1 of the prompt say nothing."""
    whole = torch.cat([part.new_zeros(PROMPT - 1, part.shape[-1]), part, part.new_zeros(1, part.shape[-1])])
    if size == 1:
        return whole
    chunk, *_ = cp.get_logits_and_tokens_offset_with_cp(len(whole), len(part))
    padded = torch.cat([whole, whole.new_zeros(2 * size * chunk - len(whole), whole.shape[-1])])
    chunks = padded.split(chunk)
    return torch.cat([chunks[rank], chunks[2 * size - 1 - rank]])
