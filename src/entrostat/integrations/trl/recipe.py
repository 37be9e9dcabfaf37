"""A recipe's campaigns trained by TRL, for `engine: trl`.

TRL samples, computes the group-relative advantages and takes the optimizer steps, under the recipe's controller. Tasks,
grader, evaluation and run folder are those of any engine, so that engines can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl import GRPOConfig

from entrostat.campaign.engine import Listener
from entrostat.engine.evaluate import evaluate_split
from entrostat.engine.policy import Policy, load_policy
from entrostat.grading import CodeGrader
from entrostat.integrations.trl.engine import TrlEngine
from entrostat.integrations.trl.tasks import graded_reward, task_dataset
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer
from entrostat.objective import Sapo
from entrostat.recipe import Recipe, RecipeError, build_controller
from entrostat.recipe.recipe import build_objective
from entrostat.recipe.sections import KlRecipe
from entrostat.recipe.task_sets import TaskSplits

LOSSES = {  # of an objective and its aggregation: TRL's loss_type and importance_sampling_level
    ("clip", "token-mean"): ("dapo", "token"),
    ("clip", "sequence-mean"): ("grpo", "token"),
    ("clip", "constant"): ("dr_grpo", "token"),
    ("gspo", "sequence-mean"): ("grpo", "sequence"),
    ("cispo", "token-mean"): ("cispo", "token"),
    ("sapo", "sequence-mean"): ("sapo", "token"),
}
SCALED_BY = {"grpo": "group", "dr-grpo": "none"}


def build_trl_engine(
    recipe: Recipe, tasks: TaskSplits, grader: CodeGrader, listener: Listener | None = None
) -> TrlEngine:
    """The engine for a recipe's campaigns. RecipeError: the recipe has a setting that TRL does not support."""
    refuse_what_trl_cannot_do(recipe)

    def build(folder: Path, steps: int, output: Path) -> EntropyGRPOTrainer:
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        policy = load_policy(folder, recipe.policy.dtype)
        information = recipe.control.information
        try:
            trainer = EntropyGRPOTrainer(
                model=policy.model,
                reward_funcs=graded_reward(tasks.train, grader),
                args=trl_settings(recipe, steps, output),
                train_dataset=task_dataset(tasks.train, policy.tokenizer),
                processing_class=policy.tokenizer,
                controller=build_controller(recipe),
                information_every=information.every if information else None,
                information_completions=information.completions if information else 64,
                regions=recipe.control.regions,
                horizon="controller",  # a campaign may be shorter than the schedule
            )
        except ValueError as error:
            raise RecipeError(f"control: engine trl cannot follow this recipe; {error}") from error
        trainer.remove_callback(PrinterCallback)  # the run folder has its numbers
        return trainer

    def measure(trainer: Any, split: str, part: slice) -> Mapping[str, Any]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        training = model.training
        model.eval()
        policy = Policy(model, trainer.processing_class, recipe.policy.path)
        evaluated = evaluate_split(recipe, grader, policy, split, getattr(tasks, split), part)
        model.train(training)
        return evaluated

    evaluation = recipe.evaluation
    return TrlEngine(
        build,
        measure,
        len(tasks.select),
        evaluation.every,
        listener,
        report=evaluation.report,
        measured=tasks.measured,
    )


def trl_settings(recipe: Recipe, steps: int, output: Path) -> GRPOConfig:
    """A recipe's numbers under TRL's names, for a campaign of `steps` optimizer steps.

    A rollout batch is one generation batch, used for update.minibatches steps in each of update.epochs passes. A resume
    point is between two batches, so that a killed campaign samples the same again.
    """
    rollout, update = recipe.rollout, recipe.update
    rows = rollout.prompts * rollout.samples // update.minibatches
    objective = build_objective(recipe)
    loss_type, level = LOSSES[update.objective["name"], update.aggregate]
    temperatures = {}
    if isinstance(objective, Sapo):
        temperatures = {
            "sapo_temperature_pos": objective.tau_rewarded,
            "sapo_temperature_neg": objective.tau_punished,
        }
    at_a_time = max(size for size in range(1, rows + 1) if rows % size == 0 and size <= update.microbatch_rows)
    return GRPOConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=at_a_time,
        gradient_accumulation_steps=rows // at_a_time,
        steps_per_generation=rows // at_a_time * update.minibatches,
        num_generations=rollout.samples,
        num_iterations=update.epochs,
        temperature=rollout.temperature,
        max_completion_length=rollout.max_new_tokens,
        loss_type=loss_type,
        importance_sampling_level=level,
        **temperatures,
        scale_rewards=SCALED_BY[str(update.advantage)],
        beta=update.kl.coefficient if update.kl else 0.0,
        learning_rate=update.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=update.warmup_steps,
        weight_decay=update.weight_decay,
        adam_beta1=update.betas[0],
        adam_beta2=update.betas[1],
        max_grad_norm=update.max_grad_norm or 0.0,
        gradient_checkpointing=recipe.policy.device != "cpu",
        use_cpu=recipe.policy.device == "cpu",
        bf16=False,
        seed=recipe.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=recipe.campaign.checkpoint_every * update.steps_per_batch,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
    )


def _penalty(kl: KlRecipe | None) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """What TRL's beta is: a fixed coefficient of k3 in the loss, towards the model that training starts from."""
    if kl is None:
        return {}
    return {
        "update.kl.kind": (kl.kind, ("fixed",)),
        "update.kl.estimate": (kl.estimate, ("k3",)),
        "update.kl.place": (kl.place, ("loss",)),
        "update.kl.reference": (kl.reference, ("start",)),
    }


def refuse_what_trl_cannot_do(recipe: Recipe) -> None:
    """Raise RecipeError, with the field, its value and the allowed ones, if TRL would not follow the recipe."""
    update, control = recipe.update, recipe.control
    allowed: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "engine_arguments": (recipe.engine_arguments, ((),)),
        "campaign.schedule_steps": (recipe.campaign.schedule_steps, (None,)),
        "update.advantage": (update.advantage, tuple(SCALED_BY)),
        "update.objective": (update.objective["name"], tuple(dict.fromkeys(name for name, _ in LOSSES))),
        "update.aggregate": (
            update.aggregate,
            tuple(how for name, how in LOSSES if name == update.objective["name"]),
        ),
        "update.failure_reward": (update.failure_reward, (0,)),
        **_penalty(update.kl),
        "update.optimizer": (update.optimizer, ("adamw",)),
        "control.measure_change": (control.measure_change, (False,)),
        "control.first_order": (control.first_order, (False,)),
        "control.correction": (control.correction and control.correction["name"], (None,)),
        "control.dual_clip": (control.dual_clip, (None,)),
        "campaign.optimizer": (recipe.campaign.optimizer, ("reset",)),
    }
    for field, (value, choices) in allowed.items():
        if value not in choices:
            wanted = " or ".join("null" if choice is None else str(choice) for choice in choices)
            raise RecipeError(f"{field}: got {value!r}, which engine trl cannot follow; set it to {wanted}")
