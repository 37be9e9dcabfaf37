"""verl's synchronous trainer under a controller, by configuration alone.

    VERL_USE_EXTERNAL_MODULES=entrostat.integrations.verl.trainer python -m verl.trainer.main_ppo \
        trainer.v1.trainer_mode=entrostat '+trainer.v1.entrostat.strategy={name: id}' \
        actor_rollout_ref.actor.policy_loss.loss_mode=entrostat_controlled ...

Keys under trainer.v1.entrostat, with the meaning that a recipe's `control` section gives them: strategy, reweighting,
correction, bonus, ema, regions, and `objective` and `kl_cov` with that of its section `update`; `extended: true` lets a
run resume with another number of steps; `total_steps` is the length of the schedule in optimizer steps, if the run is
only a part of it. Tier C with the fsdp and fsdp2 engines, tier B (no reweighting, no flow) with the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from entrostat.control import EntropyController
from entrostat.integrations.comparing import warn_of_cut_batches
from entrostat.integrations.verl import refuse_trl_beside_verl
from entrostat.integrations.verl.loss import AGGREGATIONS, thresholds
from entrostat.integrations.verl.worker import LOSS_MODE, ControlledLoss, EntropyActorRolloutRefWorker, tier_of
from entrostat.objective import Objective
from entrostat.recipe import Recipe, RecipeError, build_controller, build_objective, parse_recipe
from entrostat.recipe.methods import OBJECTIVES, build

try:
    import ray
    from omegaconf import DictConfig, OmegaConf
    from verl.trainer.ppo.utils import Role
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils.config import omega_conf_to_dataclass
except ImportError as error:
    raise ImportError(
        f"entrostat.integrations.verl.trainer needs verl ({error}): pip install 'entrostat[verl]'"
    ) from error

MODE = "entrostat"
OF_UPDATE = ("objective", "kl_cov")  # keys that a recipe has in its section update


@register_trainer(MODE)
class EntropyPPOTrainer(PPOTrainerSync):  # type: ignore[misc]
    """PPOTrainerSync whose actor learns under a controller; see the module for its keys."""

    def __init__(self, config: Any) -> None:
        refuse_trl_beside_verl()
        self.tier = check(config)
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        """verl's buffer for the mode "sync", which this trainer is."""
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(EntropyActorRolloutRefWorker)

    def _load_checkpoint(self) -> None:
        """Give the workers their loss before a checkpoint brings back its controller."""
        steps = optimizer_steps(self.config, self.total_training_steps)
        ours = self.config.trainer.v1.get(MODE, {}) or {}
        controller = controller_of(self.config, ours.get("total_steps") or steps)
        objective, kl_cov = objective_of(self.config)
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        regions, extended = ours.get("regions", "surprisal"), bool(ours.get("extended", False))
        self.actor_rollout_wg.set_loss_fn(
            ControlledLoss(controller, actor, self.tier, regions, extended, objective, kl_cov)
        )
        print(
            f"entrostat: tier {self.tier}, {objective}, {controller.strategy}, {steps} optimizer steps",
            flush=True,
        )
        super()._load_checkpoint()


def check(config: Any) -> Literal["B", "C"]:
    """The tier that a configuration reaches. Raises ValueError, naming the key, for what contradicts the controller."""
    actor = config.actor_rollout_ref.actor
    if actor.policy_loss.loss_mode != LOSS_MODE:
        raise ValueError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode is {actor.policy_loss.loss_mode!r}, which reads no "
            f"controller; set it to {LOSS_MODE}"
        )
    tier = tier_of(actor)
    recipe = _recipe(config)
    control = recipe.control
    aggregations = [AGGREGATIONS[one] for one in build_objective(recipe).aggregations]
    if actor.loss_agg_mode not in aggregations and len(aggregations) < len(AGGREGATIONS):
        raise ValueError(
            f"actor_rollout_ref.actor.loss_agg_mode is {actor.loss_agg_mode!r}, but trainer.v1.{MODE}.objective "
            f"{recipe.update.objective['name']!r} is a mean over sequences; set it to {' or '.join(aggregations)}"
        )
    if tier == "B" and control.reweighting is not None:
        raise ValueError(
            f"trainer.v1.{MODE}.reweighting is {control.reweighting['name']!r}, which needs the logits; set "
            "actor_rollout_ref.actor.strategy to fsdp or fsdp2 and use_fused_kernels to false, or drop it"
        )
    if control.correction is not None:
        _check_correction(config, control.correction["name"])
    if (tier == "B" or control.bonus is not None) and not actor.calculate_entropy:
        raise ValueError("actor_rollout_ref.actor.calculate_entropy is false; set it to true, the controller needs H")
    if control.bonus is not None and actor.entropy_coeff:
        raise ValueError(f"actor_rollout_ref.actor.entropy_coeff is {actor.entropy_coeff} with a bonus; set it to 0")
    if tier == "C" and actor.fsdp_config.get("pad_to_length", False):
        raise ValueError(
            "actor_rollout_ref.actor.fsdp_config.pad_to_length is true (by default that of actor.pad_to_length), and "
            "verl's engine then hands out no logits; set it to false"
        )
    if config.get("distillation", {}).get("enabled", False):
        raise ValueError("distillation.enabled is true; a distillation loss and a controller exclude each other")
    if not _whole(config):
        warn_of_cut_batches("verl", build_controller(recipe).parts)
    if updates_per_batch(config) == 1 and control.strategy is not None:
        warnings.warn(
            "data.train_batch_size equals actor.ppo_mini_batch_size and ppo_epochs is 1: every ratio is 1, so clip "
            "bounds and with them the strategy do nothing; lower ppo_mini_batch_size or raise ppo_epochs",
            stacklevel=2,
        )
    return tier


def _check_correction(config: Any, name: str) -> None:
    """Raise ValueError, naming the key, if the correction would have no sampler or stand beside verl's own."""
    where = f"trainer.v1.{MODE}.correction is {name!r}"
    if not config.actor_rollout_ref.rollout.calculate_log_probs:
        raise ValueError(
            f"{where}, but the sampler's log-probabilities are not kept; set "
            "actor_rollout_ref.rollout.calculate_log_probs to true"
        )
    theirs = config.algorithm.get("rollout_correction") or {}
    for key in ("rollout_is", "rollout_rs", "bypass_mode"):
        if theirs.get(key):
            raise ValueError(
                f"{where} beside algorithm.rollout_correction.{key} {theirs.get(key)!r}; keep one of the two"
            )


def _whole(config: Any) -> bool:
    """Whether one micro-batch of one rank has all completions of an optimizer step."""
    actor = config.actor_rollout_ref.actor
    ranks = int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)
    rows = int(actor.ppo_mini_batch_size) * int(config.actor_rollout_ref.rollout.n)
    return ranks == 1 and not actor.use_dynamic_bsz and (actor.ppo_micro_batch_size_per_gpu or 0) >= rows


def updates_per_batch(config: Any) -> int:
    """Optimizer steps per batch of completions."""
    actor = config.actor_rollout_ref.actor
    return max(int(config.data.train_batch_size) // int(actor.ppo_mini_batch_size), 1) * int(actor.ppo_epochs)


def optimizer_steps(config: Any, training_steps: int) -> int:
    """Optimizer steps of the run."""
    return training_steps * updates_per_batch(config)


def controller_of(config: Any, total_steps: int) -> EntropyController:
    """The controller that trainer.v1.entrostat describes, over `total_steps` optimizer steps; without a strategy the
    constant band of verl's clip_ratio_low and clip_ratio_high.
    """
    return build_controller(_recipe(config, total_steps))


def objective_of(config: Any) -> tuple[Objective, tuple[float, float] | None]:
    """The objective that trainer.v1.entrostat describes, clip by default, and (share, coefficient) of KL-Cov's term."""
    recipe = _recipe(config)
    kl_cov = recipe.update.kl_cov
    return build_objective(recipe), None if kl_cov is None else (kl_cov.share, kl_cov.coefficient)


def _recipe(config: Any, total_steps: int | None = None) -> Recipe:
    """The recipe of these settings. total_steps: also give an objective with a band that of verl's clip_ratio_low and
    clip_ratio_high, unless there is a strategy. Raises ValueError, naming the key, for an invalid one.
    """
    given = config.trainer.v1.get(MODE, {}) or {}
    plain: Mapping[str, Any] = OmegaConf.to_container(given, resolve=True) if isinstance(given, DictConfig) else given
    control = {key: value for key, value in plain.items() if key not in ("extended", "total_steps", *OF_UPDATE)}
    update = {key: plain[key] for key in OF_UPDATE if plain.get(key) is not None}
    choice = update.get("objective", "clip")
    try:
        objective = build(OBJECTIVES, choice if isinstance(choice, Mapping) else {"name": choice})
        if total_steps is not None and objective.banded and not control.get("strategy"):
            low, high = thresholds(config.actor_rollout_ref.actor)
            control["strategy"] = {"name": "constant", "upper": high, "lower": low}
        # verl scores the completions anew, unless bypassed
        update |= {"old_logp": "recomputed", "aggregate": objective.aggregations[0], "epochs": 1}
        campaign = {} if total_steps is None else {"steps": total_steps}
        return parse_recipe(
            {"name": "verl", "campaign": campaign, "update": update, "control": control}, origin=f"trainer.v1.{MODE}"
        )
    except RecipeError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        raise ValueError(f"trainer.v1.{MODE}.objective: {error}") from error
