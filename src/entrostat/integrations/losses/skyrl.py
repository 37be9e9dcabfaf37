"""SkyRL: its command with its option for an entry point, and ENTROSTAT_CONTROL=control.yaml:

    python -m skyrl.train.entrypoints.main_base trainer.override_entrypoint=entrostat.integrations.losses.skyrl ...

SkyRL's own policy loss runs ("regular" or "dual_clip"), reading our thresholds as eps_clip_low and eps_clip_high, our
weights in its advantages and a bonus as entropy_loss_coef: its off-policy corrections, reductions and metrics are
untouched. Tier A: the loss gets ln p alone; the mean entropy that SkyRL reports of every step (policy_entropy) is what
a controller follows. A step is one of the policy's learning-rate scheduler, an optimizer step, in FSDP and Megatron
workers; SkyRL's checkpoint contains it and entrostat_controller.json, the state of a controller that follows the
entropy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from entrostat.integrations.losses.steering import HandedOver, Overlay, Steering, Tier, refuse, steering

TIER: Tier = "A"
WORKERS = {  # trainer.strategy -> the module of its workers, and the policy's class
    "fsdp": ("skyrl.backends.skyrl_train.workers.fsdp.fsdp_worker", "FSDPPolicyWorkerBase"),
    "megatron": ("skyrl.backends.skyrl_train.workers.megatron.megatron_worker", "MegatronPolicyWorkerBase"),
}
COEFFICIENT = "trainer.algorithm.entropy_loss_coef"
STATE_FILE = "entrostat_controller.json"
ENTROPY = "policy_entropy"


def steered_loss(plain: Callable[..., Any], control: Steering) -> Callable[..., Any]:
    """SkyRL's policy loss under our thresholds and weights, with the same arguments and result."""

    def policy_loss(
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        config: Any,
        loss_mask: Tensor | None = None,
        rollout_logprobs: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        refuse_algorithm(config)
        low, high = control.thresholds(old_log_probs, (config.eps_clip_low, config.eps_clip_high))
        if control.weighs:
            mask = torch.ones_like(log_probs) if loss_mask is None else loss_mask
            stats = HandedOver(logp=log_probs.detach())
            advantages = advantages * control.weights(stats, advantages, mask > 0, old_log_probs, rollout_logprobs)
        steered = Overlay(config, eps_clip_low=low, eps_clip_high=high)
        masks = {"loss_mask": loss_mask, "rollout_logprobs": rollout_logprobs}
        return plain(log_probs, old_log_probs, advantages, config=steered, **masks, **kwargs)

    return policy_loss


def refuse_algorithm(algorithm: Any) -> None:
    """Raise ValueError, naming it, for a policy loss that does not read the thresholds of a token's ratio."""
    allowed = ("regular", "dual_clip")
    refuse("SkyRL", {"trainer.algorithm.policy_loss_type": (algorithm.policy_loss_type, allowed)})


def steered_worker(plain: type, control: Steering) -> type:
    """The class of SkyRL's policy workers, whose loss is steered. `control` travels with the class."""

    class Steered(plain):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            refuse_algorithm(self.cfg.algorithm)
            own: Any = self.policy_loss_fn
            self.policy_loss_fn: Any = steered_loss(own, control)
            print(control.description, flush=True)

        def forward_backward(self, data: Any, loss_fn: str | None = None, **kwargs: Any) -> Any:
            if loss_fn is not None:  # a Tinker client's own
                return super().forward_backward(data, loss_fn, **kwargs)
            control.begin_step(step(self.scheduler))
            with bonus(self.cfg.algorithm, control):
                answer = super().forward_backward(data, **kwargs)
            if control.follows and ENTROPY in answer.metrics:
                control.add(float(answer.metrics[ENTROPY]), 1)
            return answer

        def save_checkpoint(self, ckpt_dir: str, *args: Any, **kwargs: Any) -> Any:
            answer = super().save_checkpoint(ckpt_dir, *args, **kwargs)
            if control.follows:
                control.begin_step(step(self.scheduler))
                if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
                    state_file(ckpt_dir).write_text(json.dumps(control.state_dict(), allow_nan=False))
            return answer

        def load_checkpoint(self, ckpt_dir: str, *args: Any, **kwargs: Any) -> Any:
            answer = super().load_checkpoint(ckpt_dir, *args, **kwargs)
            if control.follows and step(self.scheduler) > 0:
                file = state_file(ckpt_dir)
                if not file.exists():
                    raise ValueError(f"{file}: missing, so the checkpoint has no state of the controller; start anew")
                control.load_state_dict(json.loads(file.read_text()))
            return answer

    Steered.__name__ = Steered.__qualname__ = plain.__name__
    return Steered


@contextmanager
def bonus(algorithm: Any, control: Steering) -> Iterator[None]:
    """SkyRL's entropy loss with the coefficient of our bonus, if there is one."""
    own = algorithm.use_entropy_loss, algorithm.entropy_loss_coef
    if control.pays:
        algorithm.use_entropy_loss, algorithm.entropy_loss_coef = control.bonus() > 0, control.bonus()
    try:
        yield
    finally:
        algorithm.use_entropy_loss, algorithm.entropy_loss_coef = own


def step(scheduler: Any) -> int:
    """The optimizer steps that a scheduler of PyTorch or Megatron has counted; SkyRL advances either by one."""
    return int(scheduler.last_epoch if hasattr(scheduler, "last_epoch") else scheduler.num_steps)


def state_file(folder: str) -> Path:
    """The controller's state in a checkpoint. Raises ValueError for one that is not a folder of this machine."""
    if "://" in folder:
        raise ValueError(f"SkyRL: trainer.ckpt_path is {folder}; a controller that follows the entropy needs a folder")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / STATE_FILE


def steer(control: Steering, strategy: str = "fsdp") -> None:
    """Make SkyRL build steered policy workers of a trainer.strategy in this process from now on."""
    import ray

    module, name = WORKERS[strategy]
    home = cast(Any, import_module(module))
    home.PolicyWorker = ray.remote(num_gpus=1)(steered_worker(getattr(home, name), control))


def main() -> None:
    """SkyRL's own entry point, its policy workers steered.

    Raises ValueError before anything starts for an invalid control, a strategy without steered workers, a policy loss
    that reads no thresholds and an entropy loss beside a bonus.
    """
    import ray
    from skyrl.train.config import SkyRLTrainConfig
    from skyrl.train.entrypoints.main_base import BasePPOExp
    from skyrl.train.utils import initialize_ray, validate_cfg

    control = steering(TIER, COEFFICIENT, measured=True)
    arguments = [one for one in sys.argv[1:] if not one.startswith("trainer.override_entrypoint=")]
    config = SkyRLTrainConfig.from_cli_overrides(arguments)
    validate_cfg(config)
    strategy, algorithm = config.trainer.strategy, config.trainer.algorithm
    refuse("SkyRL", {"trainer.strategy": (strategy, tuple(WORKERS))})
    refuse_algorithm(algorithm)
    if control.pays:
        refuse("SkyRL", {"trainer.algorithm.use_entropy_loss": (algorithm.use_entropy_loss, (False,))})
    initialize_ray(config)

    def train() -> None:
        steer(control, strategy)
        BasePPOExp(config).run()

    ray.get(ray.remote(num_cpus=1)(train).remote())
