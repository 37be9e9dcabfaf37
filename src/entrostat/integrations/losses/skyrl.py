"""SkyRL: its command with its option for an entry point, and ENTROSTAT_CONTROL=control.yaml:

    python -m skyrl.train.entrypoints.main_base trainer.override_entrypoint=entrostat.integrations.losses.skyrl ...

SkyRL's own policy loss runs ("regular" or "dual_clip"), reading our thresholds as eps_clip_low and
eps_clip_high: its off-policy corrections, reductions and metrics are untouched. Tier A. A step is one of the policy's
learning-rate scheduler, an optimizer step; SkyRL's checkpoint contains it. Only strategy fsdp.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from torch import Tensor

from entrostat.integrations.losses.steering import Control, Overlay, refuse, steering

TIER = "A"
WORKERS = "skyrl.backends.skyrl_train.workers.fsdp.fsdp_worker"


def steered_loss(plain: Callable[..., Any], control: Control, step: Callable[[], int]) -> Callable[..., Any]:
    """SkyRL's policy loss under the thresholds of `step()`, with the same arguments and result."""

    def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, config: Any, **kwargs: Any) -> Any:
        refuse_algorithm(config)
        low, high = control.thresholds(step(), old_log_probs)
        steered = Overlay(config, eps_clip_low=low, eps_clip_high=high)
        return plain(log_probs, old_log_probs, advantages, config=steered, **kwargs)

    return policy_loss


def refuse_algorithm(algorithm: Any) -> None:
    """Raise ValueError, naming it, for a policy loss that does not read the thresholds of a token's ratio."""
    allowed = ("regular", "dual_clip")
    refuse("SkyRL", {"trainer.algorithm.policy_loss_type": (algorithm.policy_loss_type, allowed)})


def steered_worker(plain: type, control: Control) -> type:
    """The class of SkyRL's policy workers, whose loss is steered. `control` travels with the class."""

    def __init__(self: Any, **kwargs: Any) -> None:  # noqa: N807
        plain.__init__(self, **kwargs)  # type: ignore[misc]
        refuse_algorithm(self.cfg.algorithm)
        self.policy_loss_fn = steered_loss(self.policy_loss_fn, control, lambda: int(self.scheduler.last_epoch))
        print(f"entrostat: tier A, {control.strategy}, {control.total_steps} steps", flush=True)

    return type(plain.__name__, (plain,), {"__init__": __init__})


def steer(control: Control) -> None:
    """Make SkyRL build steered policy workers in this process from now on."""
    import ray

    home = cast(Any, import_module(WORKERS))
    home.PolicyWorker = ray.remote(num_gpus=1)(steered_worker(home.FSDPPolicyWorkerBase, control))


def main() -> None:
    """SkyRL's own entry point, its policy workers steered.

    Raises ValueError before anything starts for an invalid control, a strategy other than fsdp and a policy loss that
    reads no thresholds.
    """
    import ray
    from skyrl.train.config import SkyRLTrainConfig
    from skyrl.train.entrypoints.main_base import BasePPOExp
    from skyrl.train.utils import initialize_ray, validate_cfg

    control = steering()
    arguments = [one for one in sys.argv[1:] if not one.startswith("trainer.override_entrypoint=")]
    config = SkyRLTrainConfig.from_cli_overrides(arguments)
    refuse("SkyRL", {"trainer.strategy": (config.trainer.strategy, ("fsdp",))})
    refuse_algorithm(config.trainer.algorithm)
    validate_cfg(config)
    initialize_ray(config)

    def train() -> None:
        steer(control)
        BasePPOExp(config).run()

    ray.get(ray.remote(num_cpus=1)(train).remote())
