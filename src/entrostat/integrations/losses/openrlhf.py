"""OpenRLHF: its command, run through this module, with ENTROSTAT_CONTROL=control.yaml:

    python -m entrostat.integrations.losses.openrlhf ARGUMENTS     those of openrlhf.cli.train_ppo_ray

OpenRLHF's own `PolicyLoss` runs, reading our thresholds as clip_eps_low and clip_eps_high: its dual clip, vLLM
corrections, normalisers and metrics are untouched. Tier A. A step is one of the actor's learning-rate scheduler, an
optimizer step; OpenRLHF's checkpoint contains it.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import Control, refuse, steering

TIER = "A"
COMMAND = "openrlhf.cli.train_ppo_ray"
ACTORS = "openrlhf.trainer.ray.ppo_actor"


class SteeredPolicyLoss(torch.nn.Module):
    """OpenRLHF's PolicyLoss under the thresholds of `step()`. Raises ValueError for a ratio that is not a token's."""

    def __init__(self, host: Any, control: Control, step: Callable[[], int]) -> None:
        super().__init__()
        refuse("OpenRLHF", {"actor.policy_loss_type": (host.policy_loss_type, ("ppo",))})
        self.host, self.control, self.step = host, control, step

    def forward(self, log_probs: Tensor, old_log_probs: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What OpenRLHF's own loss returns."""
        host = self.host
        plain = host.clip_eps_low, host.clip_eps_high
        host.clip_eps_low, host.clip_eps_high = self.control.thresholds(self.step(), old_log_probs)
        try:
            return host(log_probs, old_log_probs, *args, **kwargs)
        finally:
            host.clip_eps_low, host.clip_eps_high = plain


def steered_actor(plain: type, control: Control) -> type:
    """The class of OpenRLHF's policy actors, whose trainer's loss is steered. `control` travels with the class."""

    def init_model_from_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = plain.init_model_from_pretrained(self, *args, **kwargs)  # type: ignore[attr-defined]
        trainer = self.trainer
        trainer.actor_loss_fn = SteeredPolicyLoss(
            trainer.actor_loss_fn, control, lambda: int(trainer.actor_scheduler.last_epoch)
        )
        print(f"entrostat: tier A, {control.strategy}, {control.total_steps} steps", flush=True)
        return answer

    return type(plain.__name__, (plain,), {"init_model_from_pretrained": init_model_from_pretrained})


def main() -> None:
    """OpenRLHF's command, its policy actors steered. Raises ValueError before anything starts for a faulty control."""
    import ray

    control = steering()
    home = cast(Any, import_module(ACTORS))
    plain = home.PolicyModelActor.__ray_metadata__.modified_class.__ray_actor_class__
    home.PolicyModelActor = ray.remote(num_gpus=1)(steered_actor(plain, control))
    runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
