"""OpenRLHF: its command, run through this module, with ENTROSTAT_CONTROL=control.yaml:

    python -m entrostat.integrations.losses.openrlhf ARGUMENTS     those of openrlhf.cli.train_ppo_ray

OpenRLHF's own `PolicyLoss` runs, reading our thresholds as clip_eps_low and clip_eps_high, our weights in its
advantages and a bonus as actor.entropy_coef: its dual clip, vLLM corrections, normalisers and metrics are untouched.
Tier B: the entropy is OpenRLHF's, which computes it if actor.entropy_coef is set. A step is one of the actor's
learning-rate scheduler, an optimizer step; OpenRLHF's checkpoint contains it and the state of the controller.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import HandedOver, Steering, Tier, refuse, steering

TIER: Tier = "B"
COMMAND = "openrlhf.cli.train_ppo_ray"
ACTORS = "openrlhf.trainer.ray.ppo_actor"
COEFFICIENT = "actor.entropy_coef"
STATE = "entrostat_controller"


class SteeredPolicyLoss(torch.nn.Module):
    """OpenRLHF's PolicyLoss under our control at `step()`. Raises ValueError for a ratio that is not a token's.

    settings: args.actor of OpenRLHF, whose entropy_coef a bonus sets.
    """

    def __init__(self, host: Any, control: Steering, step: Callable[[], int], settings: Any) -> None:
        super().__init__()
        refuse("OpenRLHF", {"actor.policy_loss_type": (host.policy_loss_type, ("ppo",))})
        if control.pays or ((control.weighs or control.follows) and settings.entropy_coef is None):
            refuse("OpenRLHF", {COEFFICIENT: (settings.entropy_coef, (0,))})
        self.host, self.control, self.step, self.settings = host, control, step, settings
        self.entropy: Tensor | None = None

    def keep_entropy(self, model: Any, inputs: Any, output: Any) -> None:  # noqa: ARG002
        """A forward hook of OpenRLHF's actor: the entropy (B, S - 1) of its forward pass for training."""
        found = output[1] if isinstance(output, tuple) else None
        self.entropy = getattr(found, "entropy", None)

    def forward(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        *args: Any,
        action_mask: Tensor,
        **kwargs: Any,
    ) -> Any:
        """What OpenRLHF's own loss returns. All are (B, A), the last A tokens of each sequence."""
        host, control = self.host, self.control
        control.begin_step(self.step())
        if control.pays:
            self.settings.entropy_coef = control.bonus()
        if control.weighs or control.follows:
            assert self.entropy is not None, "the forward hook of the actor is not registered"
            entropy = self.entropy[:, -action_mask.shape[1] :].detach()
            if control.follows:
                control.record(entropy, action_mask)
            stats = HandedOver(logp=log_probs.detach(), entropy=entropy)
            sampler = kwargs.get("rollout_log_probs")
            factors = control.weights(stats, advantages, action_mask.bool(), old_log_probs, sampler)
            advantages = advantages * factors
        own = host.clip_eps_low, host.clip_eps_high
        host.clip_eps_low, host.clip_eps_high = control.thresholds(old_log_probs, own)
        try:
            return host(log_probs, old_log_probs, advantages, *args, action_mask=action_mask, **kwargs)
        finally:
            host.clip_eps_low, host.clip_eps_high = own


def steered_actor(plain: type, control: Steering) -> type:
    """The class of OpenRLHF's policy actors, whose trainer's loss is steered. `control` travels with the class."""

    def init_model_from_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = plain.init_model_from_pretrained(self, *args, **kwargs)  # type: ignore[attr-defined]
        trainer = self.trainer
        loss = SteeredPolicyLoss(trainer.actor_loss_fn, control, lambda: step(self), trainer.args.actor)
        if control.weighs or control.follows:
            trainer.actor.register_forward_hook(loss.keep_entropy)
        if control.follows and step(self) > 0:
            control.load_state_dict(saved_state(self))
        trainer.actor_loss_fn = loss
        print(control.description, flush=True)
        return answer

    def save_checkpoint(self: Any, tag: str, client_states: Any = None, *args: Any, **kwargs: Any) -> Any:
        if control.follows:
            control.begin_step(step(self))
            client_states = {**(client_states or {}), STATE: control.state_dict()}
        return plain.save_checkpoint(self, tag, client_states, *args, **kwargs)  # type: ignore[attr-defined]

    members = {"init_model_from_pretrained": init_model_from_pretrained, "save_checkpoint": save_checkpoint}
    return type(plain.__name__, (plain,), members)


def step(actor: Any) -> int:
    """The optimizer steps of an actor, which its checkpoint contains."""
    return int(actor.trainer.actor_scheduler.last_epoch)


def saved_state(actor: Any) -> Any:
    """The state of the controller in the actor's checkpoint. Raises ValueError if there is none."""
    if STATE not in actor.checkpoint_states:
        raise ValueError(
            f"OpenRLHF resumes at step {step(actor)}, and its checkpoint has no state of the controller; "
            "start a new run from the weights"
        )
    return actor.checkpoint_states[STATE]


def main() -> None:
    """OpenRLHF's command, its policy actors steered. Raises ValueError before anything starts for a faulty control."""
    import ray

    control = steering(TIER, COEFFICIENT)
    home = cast(Any, import_module(ACTORS))
    plain = home.PolicyModelActor.__ray_metadata__.modified_class.__ray_actor_class__
    home.PolicyModelActor = ray.remote(num_gpus=1)(steered_actor(plain, control))
    runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
