"""miles: losses.py's policy_loss_function; see `slime.py`, of which it is a fork."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from parity.compare import Case
from parity.slime import Parallel, both
from parity.source import pull

import entrostat.integrations.losses.miles as ours

TOUCHED = {
    "miles/backends/megatron_utils/model.py": (
        "custom_before_train_step_hook(args, rollout_id, step_id, model, optimizer, opt_param_scheduler)",
    ),
    "miles/backends/training_utils/loss_hub/logit_processors.py": ("parallel_state.tp.group",),
}


def cases(source: Path) -> Iterator[Case]:
    """Those of slime."""
    parallel = Parallel()

    def state() -> Any:
        context = SimpleNamespace(rank=parallel.rank, size=parallel.size, group=None)
        return SimpleNamespace(cp=context, tp=SimpleNamespace(group=None))

    training = source / "miles" / "backends" / "training_utils"
    home = "miles.backends.training_utils"
    given = {"get_parallel_state": state, "Callable": Callable, "logger": logging.getLogger(__name__)}
    names = (
        "get_logits_and_tokens_offset_with_cp _slice_loss_mask_for_local_cp slice_loss_masks_for_local_cp "
        "get_sum_of_sample_mean get_local_response_loss_masks all_gather_with_cp"
    )
    cp = pull(training / "cp_utils.py", names, f"{home}.cp_utils", **given)
    given |= {name: getattr(cp, name) for name in names.split()}
    names = (
        "_LOG_RATIO_EXP_CLAMP _safe_clamp_log_ratio _safe_exp_neg_ppo_kl compute_ess_ratio_contribution "
        "compute_approx_kl compute_opsm_mask compute_gspo_kl compute_policy_loss"
    )
    hub = training / "loss_hub"
    maths = pull(hub / "math_utils.py", names, f"{home}.loss_hub.math_utils", Namespace=Namespace, **given)
    # Each context-parallel rank runs by itself here: the effective sample size is left to the host's own process group.
    maths.dist = SimpleNamespace(all_reduce=lambda *_, **__: None, ReduceOp=SimpleNamespace(SUM=None))
    given |= {name: getattr(maths, name) for name in names.split()}
    corrections = "vanilla_tis_function icepop_function"
    tis = pull(hub / "corrections.py", corrections, f"{home}.loss_hub.corrections", **given)
    pull(hub / "logit_processors.py", "get_responses", ours.RESPONSES, Namespace=Namespace, Iterator=Iterator, **given)
    module = pull(
        hub / "losses.py",
        "policy_loss_function",
        ours.LOSS,
        Protocol=Protocol,
        load_function=lambda name: getattr(tis, name),
        get_log_probs_and_entropy=lambda logits, **_: parallel.forward,
        vanilla_tis_function=tis.vanilla_tis_function,
        **given,
    )

    def reducer(totals: Any, lengths: Any, masks: Any, denominators: Any, per_token: bool) -> Any:
        return cp.get_sum_of_sample_mean(totals, lengths, masks, per_token, denominators=denominators)

    yield from both(parallel, cp, module.policy_loss_function, ours.loss_function, reducer)
