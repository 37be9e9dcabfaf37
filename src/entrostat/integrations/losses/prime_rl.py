"""prime-rl, in its TOML:

    [trainer.loss]
    type = "custom"
    import_path = "entrostat.integrations.losses.prime_rl.loss"
    kwargs = { strategy = "id", total_steps = 400, kl_tau = 1e-3 }

prime-rl's own `default_loss_fn` runs, its squared log-ratio to the sampler, its loss weights and its metrics included;
our weights are in its advantages. It masks a token whose probability has moved too far from the sampler's mu; the band
low <= pi/mu <= high of our rule is the masking threshold (1 - low) mu downwards and (high - 1) mu upwards. Tier A: the
loss gets ln p of one sequence, no entropy and no coefficient of a bonus. A step is one of its trainer's: the optimizer
steps of this process, counted from the checkpoint that prime-rl resumes from.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from entrostat.integrations.losses.steering import HandedOver, Steering, Tier, parse

TIER: Tier = "A"
OWN = ("adv_tau", "kl_tau", "dppo_mask_low", "dppo_mask_high")

_steps: WeakKeyDictionary[torch.optim.Optimizer, int] = WeakKeyDictionary()
_resumed_at = 0
_hook: RemovableHandle | None = None


def loss(inputs: Any, **kwargs: Any) -> Any:
    """prime-rl's loss of one sequence under the control of the current step.

    kwargs: those of `ENTROSTAT_CONTROL` in other hosts, and prime-rl's adv_tau and kl_tau with its defaults; without a
    strategy its dppo_mask_low and dppo_mask_high too. Raises ValueError for others.
    """
    from prime_rl.configs.trainer import DefaultLossConfig
    from prime_rl.trainer.rl.loss import default_loss_fn

    count_steps()
    control = _steering(**{key: value for key, value in kwargs.items() if key not in OWN})
    masks = sorted(key for key in kwargs if key.startswith("dppo_mask_"))
    if masks and not control.host_band:
        raise ValueError(
            f"trainer.loss.kwargs: {', '.join(masks)} beside a strategy, which sets it; remove one of them"
        )
    config = DefaultLossConfig(**{key: kwargs[key] for key in OWN if key in kwargs})
    control.begin_step(current_step())
    if not control.host_band:
        low, high = control.thresholds(inputs.inference_logprobs, (0.2, 0.2))
        mu = inputs.inference_logprobs.exp()
        taus = {"adv_tau": config.adv_tau, "kl_tau": config.kl_tau}
        config = SimpleNamespace(dppo_mask_low=low * mu, dppo_mask_high=high * mu, **taus)
    if control.weighs:
        stats, sampler = HandedOver(logp=inputs.trainer_logprobs.detach()), inputs.inference_logprobs
        factors = control.weights(stats, inputs.advantages, inputs.loss_mask.bool(), sampler, sampler)
        inputs = dataclasses.replace(inputs, advantages=inputs.advantages * factors)
    return default_loss_fn(inputs, config)


def current_step() -> int:
    """Training steps done: those of the checkpoint, and the optimizer's since."""
    return _resumed_at + max(_steps.values(), default=0)


def count_steps() -> None:
    """Start to count the optimizer steps of this process, from the step of a checkpoint that prime-rl loads."""
    global _hook
    if _hook is not None:
        return
    _hook = register_optimizer_step_post_hook(_count)
    from prime_rl.trainer.ckpt import CheckpointManager

    plain = CheckpointManager.load

    @functools.wraps(plain)
    def load(self: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        global _resumed_at
        found = plain(self, step, *args, **kwargs)
        _resumed_at = step
        return found

    CheckpointManager.load = load


def _count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    _steps[optimizer] = _steps.get(optimizer, 0) + 1


@functools.cache
def _parsed(settings: str) -> Steering:
    return parse(json.loads(settings), "trainer.loss.kwargs")


def _steering(**settings: Any) -> Steering:
    return _parsed(json.dumps(settings, sort_keys=True))


if "prime_rl" in sys.modules:  # imported by prime-rl for its loss, before it builds the optimizer and resumes
    count_steps()
