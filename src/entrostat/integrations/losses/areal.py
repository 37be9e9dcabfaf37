"""AReaL: a line in the script that trains, before PPOTrainer is built, with ENTROSTAT_CONTROL=control.yaml:

    entrostat.integrations.losses.areal.steer()

AReaL's own `grpo_loss_fn` runs, reading our thresholds as eps_clip and eps_clip_higher and our weights in its
advantages: its rejection sampling, M2PO mask, dual clip, distillation and statistics are untouched. Tier B: the entropy
is AReaL's; its loss has no entropy coefficient, so there is no bonus. A step is one version of the engine's weights;
AReaL's recovery keeps it; its checkpoints have entrostat_controller.json, the state of a controller that follows the
entropy. The engine, a class of ours on top of AReaL's, is named to its workers by AReaL
itself; they need ENTROSTAT_CONTROL too (env_vars of actor.scheduling_spec).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import HandedOver, Steering, Tier, refuse, steering

TIER: Tier = "B"
STATE_FILE = "entrostat_controller.json"
ENGINES = {  # where AReaL's trainer looks up a class, and where it is defined
    "FSDPPPOActor": ("areal.engine", "areal.engine.fsdp_engine"),
    "MegatronPPOActor": ("areal.engine", "areal.engine.megatron_engine"),
    "ArchonPPOActor": ("areal.experimental.engine.archon_engine", "areal.experimental.engine.archon_engine"),
}


def steer() -> None:
    """Make AReaL build steered actors in this process, or name them to its workers, from now on.

    An engine that cannot be imported here is skipped; AReaL could not use it either. Raises ValueError for an invalid
    control.
    """
    steering("B")
    for name, (place, home) in ENGINES.items():
        try:
            ours = _actor(name)
        except ImportError:
            continue
        for module in (place, home):
            setattr(import_module(module), name, ours)


def steered_loss(loss_fn: Any, control: Steering) -> Callable[..., Tensor]:
    """AReaL's loss, a functools.partial of `grpo_loss_fn` with its settings, under our thresholds and weights.

    pi_old is the proximal policy, prox_logp of the batch. Raises ValueError for a ratio that is not a token's and for a
    proximal policy that is only approximated.
    """
    settings = loss_fn.keywords
    refuse(
        "AReaL",
        {
            "actor.importance_sampling_level": (settings["importance_sampling_level"], ("token",)),
            "actor.use_sapo_loss": (settings["use_sapo_loss"], (False,)),
        },
    )

    def loss(logprobs: Tensor, entropy: Tensor, input_data: Any, **kwargs: Any) -> Tensor:
        old = input_data.get("prox_logp")
        if old is None:
            refuse("AReaL", {"actor.prox_logp_method": (settings["prox_logp_method"], ("recompute", "metrics"))})
            raise ValueError("AReaL: the batch has no prox_logp, the log-probabilities of the proximal policy")
        mask = input_data["loss_mask"].bool()
        if control.follows:
            control.record(entropy.detach(), mask)
        own = settings["eps_clip"], settings["eps_clip_higher"]
        low, high = control.thresholds(old, (own[0], own[0] if own[1] is None else own[1]))
        if control.weighs:
            stats = HandedOver(logp=logprobs.detach(), entropy=entropy.detach())
            advantages = input_data["advantages"]
            factors = control.weights(stats, advantages, mask, old, input_data["logprobs"])
            input_data = {**input_data, "advantages": advantages * factors}
        found: Tensor = loss_fn(logprobs, entropy, input_data, eps_clip=low, eps_clip_higher=high, **kwargs)
        return found

    return loss


class SteeredEngine:
    """Mixed in before AReaL's PPO actors; the losses of its other users (a critic's) pass as they are."""

    def train_batch(self, input_: Any, loss_fn: Any, loss_weight_fn: Any) -> Any:
        """AReaL's own training step, with its policy loss steered."""
        if getattr(getattr(loss_fn, "func", None), "__name__", "") == "grpo_loss_fn":
            control = steering("B")
            control.begin_step(int(self.get_version()))  # type: ignore[attr-defined]
            loss_fn = steered_loss(loss_fn, control)
        return super().train_batch(input_, loss_fn, loss_weight_fn)  # type: ignore[misc]

    def save(self, meta: Any) -> Any:
        """AReaL's checkpoint, and the state of a controller that follows the entropy, once it has taken a step."""
        answer = super().save(meta)  # type: ignore[misc]
        control = steering("B")
        if control.follows and control.step is not None:
            control.begin_step(max(int(self.get_version()), control.step))  # type: ignore[attr-defined]
            if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
                (Path(meta.path) / STATE_FILE).write_text(json.dumps(control.state_dict(), allow_nan=False))
        return answer

    def load(self, meta: Any) -> Any:
        """AReaL's checkpoint, and that state. ValueError: the checkpoint of a training run without it."""
        answer = super().load(meta)  # type: ignore[misc]
        control, file = steering("B"), Path(meta.path) / STATE_FILE
        if control.follows and meta.with_optim:
            if not file.exists():
                raise ValueError(
                    f"{file}: missing, so the checkpoint has no state of the controller; start from its weights"
                )
            control.load_state_dict(json.loads(file.read_text()))
        return answer


@cache
def _actor(name: str) -> type:
    plain = getattr(import_module(ENGINES[name][1]), name)
    return type(f"Entropy{name}", (SteeredEngine, plain), {"__module__": __name__, "__doc__": "AReaL's, steered."})


def __getattr__(name: str) -> Any:
    if name.removeprefix("Entropy") not in ENGINES or not name.startswith("Entropy"):
        raise AttributeError(name)
    return _actor(name.removeprefix("Entropy"))
