"""prime-rl: rl/loss.py's compute_loss over its default_loss_fn, packed sequences of uneven length.

Its own thresholds are of probabilities, so the host with two numbers for ratios is the host with its two masks at
(1 - low) mu and (high - 1) mu; its pi_old is the sampler's mu.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from parity.batch import Tokens
from parity.compare import STEP, Case, Cut, Rows
from parity.source import install, pull

from entrostat.integrations.losses import prime_rl

TOUCHED = {
    "src/prime_rl/trainer/ckpt.py": ("class CheckpointManager", "def load(self, step: int"),
    "src/prime_rl/trainer/rl/loss.py": ("custom_fn(inputs, **kwargs)", "import_object(loss_config.import_path)"),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kl_tau": {"kl_tau": 0.1},
    "adv_tau": {"adv_tau": 0.5},
    "loss weights": {"weights": True},
}


@dataclass
class DefaultLossConfig:
    """The fields of prime-rl's configuration, with its defaults."""

    dppo_mask_low: Any = 0.2
    dppo_mask_high: Any = 0.2
    adv_tau: float = 1.0
    kl_tau: float = 1e-3


class Anything:
    """A subscriptable stand-in for types in annotations."""

    def __class_getitem__(cls, item: Any) -> type:
        return object


def cases(source: Path) -> Iterator[Case]:
    """A case per setting."""
    install("prime_rl.configs.trainer", DefaultLossConfig=DefaultLossConfig)
    given = {"dataclass": dataclass, "field": field, "Any": Any, "Callable": Callable, "Tensor": torch.Tensor}
    types = dict.fromkeys(("Float", "Bool", "Int"), Anything)
    names = "LossInputs LossOutputs _safe_mean compute_importance_ratio_and_mismatch_kl default_loss_fn compute_loss"
    file = source / "src" / "prime_rl" / "trainer" / "rl" / "loss.py"
    module = pull(file, names, "prime_rl.trainer.rl.loss", **given, **types)
    install("prime_rl.trainer.ckpt", CheckpointManager=type("CheckpointManager", (), {"load": lambda self, step: None}))

    for name, settings in SETTINGS.items():
        own = {key: value for key, value in settings.items() if key != "weights"}

        def host(low: float, high: float, own: dict[str, Any] = own, settings: dict[str, Any] = settings) -> Any:
            def loss(inputs: Any) -> Any:
                mu = inputs.inference_logprobs.exp()
                return module.default_loss_fn(inputs, DefaultLossConfig(low * mu, high * mu, **own))

            return step(module, loss, "weights" in settings)

        def steered(steering: Any, own: dict[str, Any] = own, settings: dict[str, Any] = settings) -> Any:
            prime_rl._resumed_at = STEP
            prime_rl._steering = lambda **_: steering
            return step(module, partial(prime_rl.loss, **own), "weights" in settings)

        yield Case(name, "A", host, steered)


def step(module: Any, loss: Any, weighted: bool) -> Any:
    """A micro-batch of sequences through compute_loss, scaled by the tokens of the step over all ranks."""

    def one(tokens: Tokens, rows: Rows, rank: int, cut: Cut) -> tuple[torch.Tensor, dict[str, Any]]:  # noqa: ARG001
        lengths = tokens.mask.sum(1).tolist()
        parts = {
            name: [getattr(tokens, name)[row, : lengths[row]] for row in rows]
            for name in ("logp", "old", "advantages", "mask")
        }
        weights = [torch.linspace(0.5, 2, len(part)) for part in parts["mask"]] if weighted else None
        scale = int(tokens.mask.sum())
        found, metrics = module.compute_loss(
            parts["logp"], parts["old"], None, parts["advantages"], parts["mask"], weights, None, None,
            loss, scale, 1, 1,
        )  # fmt: skip
        return found * len(cut), metrics

    return one
