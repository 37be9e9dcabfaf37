"""GRPOTrainer settings that would bypass the controller: refused by name, or warned about at the start."""

from __future__ import annotations

import sys
from typing import Any

from entrostat.control import Constant, EntropyController
from entrostat.integrations.comparing import OWN_TERM
from entrostat.integrations.trl.objectives import CLIPPED_LOSSES
from entrostat.objective import ClipBand, Gspo, Objective


def refuse_what_bypasses(trainer: Any) -> None:
    """Raise ValueError, naming the setting and the remedy, if TRL would not follow the controller, or could not be
    measured.
    """
    args, controller = trainer.args, trainer.controller
    if any("unsloth" in kind.__name__.lower() for kind in type(trainer).__mro__) or "unsloth" in sys.modules:
        raise ValueError(
            "unsloth replaces GRPOTrainer's loss by its own, which returns no log-probabilities; "
            "import TRL without unsloth, or train without a controller"
        )
    if getattr(args, "use_liger_kernel", False) and hasattr(trainer, "compute_liger_loss"):
        raise ValueError(
            "use_liger_kernel is True, and this TRL then computes Liger's loss instead of its own; set it to False"
        )
    if getattr(args, "deepspeed", None) and str(trainer.accelerator.distributed_type.value) != "DEEPSPEED":
        raise ValueError(
            f"deepspeed is {args.deepspeed!r}, and accelerate trains without it (it does so with use_cpu=True); set "
            "use_cpu=False, or deepspeed=None"
        )
    if trainer.statistics == "head" and (reason := _head_out_of_reach(trainer)):
        raise ValueError(f"statistics is 'head', but {reason}; set statistics='logits'")
    if controller is None:
        return
    if trainer.objective is None:
        raise ValueError(
            f"loss_type is {args.loss_type!r} with importance_sampling_level {args.importance_sampling_level!r}, which "
            f"a controller cannot steer; choose {', '.join(CLIPPED_LOSSES)} at either level, or cispo or sapo at level "
            "'token'; controller=None measures any loss"
        )
    if controller.bonus is not None and getattr(trainer, "_entropy_bonus_enabled", False):
        raise ValueError(
            f"entropy_coef is {args.entropy_coef} beside the controller's bonus; set entropy_coef=0.0 and "
            "use_adaptive_entropy=False, or drop the bonus"
        )
    if controller.corrections:
        _refuse_correction(trainer)
    refuse_parts(args, controller, trainer.objective)


def refuse_parts(args: Any, controller: EntropyController, objective: Objective) -> None:
    """Raise ValueError for a part of the controller that TRL's loss would not read."""
    for part in controller.parts:
        if part.adds:
            raise ValueError(OWN_TERM.format(type(part).__name__))
    loss = f"loss_type is {args.loss_type!r} with importance_sampling_level {args.importance_sampling_level!r}"
    bands = controller.strategy.bands()
    for band in (controller.rule(), *bands):
        refuse_band(band)
    reason = objective.refuses(bands)
    if reason and (objective.banded or controller.strategy != Constant()):
        raise ValueError(
            f"{loss}, which {reason}; the strategy is {controller.strategy}: "
            + (
                "give bands that are the same for every token, such as Constant(ClipRule.constant(3e-4, 4e-4))"
                if objective.banded
                else "leave it out; weightings and bonuses work"
            )
        )
    if isinstance(objective, Gspo) and controller.weighs:
        names = [type(part).__name__ for part in controller.parts if part.weighs]
        raise ValueError(
            f"{loss}: the gradient of a sequence's ratio is the same for all its tokens, so {' and '.join(names)} "
            "could not weight them; set importance_sampling_level to 'token', or drop it"
        )


def _refuse_correction(trainer: Any) -> None:
    """Raise ValueError if the controller's correction would have no sampler, or stand beside TRL's own."""
    name = type(trainer.controller.corrections[0].correction).__name__
    if trainer.use_vllm and trainer.args.vllm_importance_sampling_correction:
        raise ValueError(
            f"vllm_importance_sampling_correction is True beside the controller's correction {name}, so tokens would "
            "be weighed twice; set it to False, or drop the correction"
        )
    if not trainer.use_vllm and getattr(trainer, "rollout_func", None) is None:
        raise ValueError(
            f"correction {name} needs the sampler's log-probabilities, and without vLLM TRL's own generation keeps "
            "none, because the trained model samples; set use_vllm=True, vllm_importance_sampling_correction=False, or "
            "drop the correction"
        )


def refuse_band(band: ClipBand) -> None:
    """Raise ValueError for a band that clips differently from PPO's pessimistic minimum, which is TRL's loss."""
    if type(band).limits is not ClipBand.limits:
        raise ValueError(
            f"strategy: {type(band).__name__} clips differently from TRL's losses; give a band with bounds only, "
            "and for a dual clip set GRPOConfig.delta"
        )


def inert(trainer: Any) -> str | None:
    """Why the clip band has no effect in this run, or None if it can have one."""
    args = trainer.args
    window = args.steps_per_generation * args.num_iterations
    if (
        trainer.controller is None
        or isinstance(trainer.controller.strategy, Constant)
        or args.gradient_accumulation_steps % window
    ):
        return None  # with vLLM, too: TRL's correction weighs tokens by pi_old / mu, and the ratio pi / pi_old stays 1
    return (
        "every batch of completions serves one optimizer step, where every ratio is 1, so that clip bounds and with "
        "them the strategy do nothing; raise num_iterations, or steps_per_generation above gradient_accumulation_steps"
    )


def _head_out_of_reach(trainer: Any) -> str | None:
    if getattr(trainer, "aux_loss_enabled", False):
        return "a mixture of experts' auxiliary loss is computed by the model's own forward pass"
    accelerator = trainer.accelerator
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if deepspeed is not None and deepspeed.zero_stage == 3:
        return "DeepSpeed ZeRO stage 3 frees the output layer's weights before the backward pass"
    fsdp = getattr(accelerator.state, "fsdp_plugin", None)
    if fsdp is not None and getattr(fsdp, "fsdp_version", 1) == 1:
        return "FSDP version 1 frees the output layer's weights before the backward pass"
    return None
