"""AReaL: ppo/actor.py's grpo_loss_fn and functional.py's ppo_actor_loss_fn on packed sequences."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from parity.batch import Tokens
from parity.compare import Case, Cut, Rows
from parity.source import pull
from torch import Tensor

from entrostat.integrations.losses.areal import steered_loss

TOUCHED = {
    "areal/engine/fsdp_engine.py": (
        "class FSDPPPOActor(",
        "def get_version(self)",
        "def train_batch(self, input_",
        "def save(self, meta: SaveLoadMeta)",
        "def load(self, meta: SaveLoadMeta)",
    ),
    "areal/engine/megatron_engine.py": ("class MegatronPPOActor(",),
    "areal/experimental/engine/archon_engine.py": ("class ArchonPPOActor(",),
    "areal/trainer/ppo/actor.py": ("functools.partial(grpo_loss_fn, eps_clip=self.config.eps_clip,",),
}
FIXED: dict[str, Any] = {
    "importance_sampling_level": "token",
    "current_version": 3,
    "prox_logp_method": "recompute",
    "use_sapo_loss": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dual clip": {"c_clip": 3.0},
    "decoupled": {"use_decoupled_loss": True},
    "rejection, token mask": {"rejection": {"level": "token", "action": "mask"}},
    "rejection, token clamp": {"rejection": {"level": "token", "action": "clamp"}},
    "rejection, sequence mask": {"rejection": {"level": "sequence", "action": "mask"}},
    "m2po": {"m2_threshold": 0.01},
}


@dataclass
class Rejection:
    """The fields of AReaL's RejectionSamplingConfig."""

    level: str = "token"
    action: str = "mask"
    metric: str = "ratio"
    agg: str = "mean"
    upper: float = 1.1
    lower: float | None = 0.9


class Tracker:
    """AReaL's stats_tracker, whose values are the metrics."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def _note(self, denominator: str = "", **values: Any) -> None:  # noqa: ARG002
        self.seen |= values

    denominator = stat = scalar = _note


def cases(source: Path) -> Iterator[Case]:
    """A case per setting."""
    tracker = Tracker()
    names = (
        "ppo_actor_loss_fn apply_rejection_sampling _check_bounds RejectionSamplingResult "
        "_compute_sequence_level_ratio_and_advantages"
    )
    given = {"Any": Any, "dataclass": dataclass, "RejectionSamplingConfig": Rejection, "functools": functools}
    estimator = {"KLEstimator": None}
    file = source / "areal" / "utils" / "functional" / "functional.py"
    functional = pull(file, names, "areal.utils.functional.functional", **given, **estimator)
    names = "grpo_loss_fn _resolve_proximal_logp _apply_m2po_masking _get_m2po_loss_mask"
    method = {"PROX_LOGP_METHOD_RECOMPUTE": "recompute", "PROX_LOGP_METHOD_LOGLINEAR": "loglinear"}
    module = pull(
        source / "areal" / "trainer" / "ppo" / "actor.py",
        names,
        "areal.trainer.ppo.actor",
        **given,
        **method,
        PROX_LOGP_METHOD_METRICS="metrics",
        stats_tracker=tracker,
        ppo_actor_loss_fn=functional.ppo_actor_loss_fn,
        infer_token_denominator=lambda data, mask: mask,
        _log_proximal_approximation_stats=lambda **_: None,
        _log_version_staleness_stats=lambda **_: None,
    )

    def build(changes: dict[str, Any], low: float, high: float) -> Any:
        settings = {key: value for key, value in changes.items() if key != "rejection"}
        rejection = Rejection(**changes["rejection"]) if "rejection" in changes else None
        return functools.partial(
            module.grpo_loss_fn,
            **{"eps_clip": low, "eps_clip_higher": high, "c_clip": None, "m2_threshold": None, **FIXED, **settings},
            rejection_sampling=rejection,
        )

    for name, changes in SETTINGS.items():
        yield Case(
            name,
            "B",
            lambda low, high, changes=changes: step(tracker, build(changes, low, high)),
            lambda steering, changes=changes: step(tracker, steered_loss(build(changes, 0.0, 0.0), steering)),
        )


def step(tracker: Tracker, loss: Any) -> Any:
    """A packed micro-batch, weighted by its tokens among those of the step, as train_batch weights it."""

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[Tensor, dict[str, Any]]:  # noqa: ARG001
        chosen = list(rows)
        mask = tokens.mask[chosen]
        lengths = mask.sum(1)
        data = {
            "logprobs": tokens.sampler[chosen][mask],
            "prox_logp": tokens.old[chosen][mask],
            "advantages": tokens.advantages[chosen][mask],
            "loss_mask": torch.ones(int(mask.sum()), dtype=torch.bool),
            "cu_seqlens": torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()]),
        }
        tracker.seen = {}
        logp = tokens.logp[chosen][mask]
        found = loss(logp, tokens.entropy[chosen][mask], data)
        return found * int(mask.sum()) / int(tokens.mask.sum()) * len(cut), tracker.seen

    return one
