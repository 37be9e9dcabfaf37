"""A recipe's campaigns trained by verl over Ray, for `engine: verl`.

verl samples, computes the group-relative advantages and takes the optimizer steps, under the recipe's controller.
Tasks, grader and run folder are those of any engine. What no key of a recipe describes (GPUs, the rollout engine, the
length of prompts) is on verl's own command line: `engine_arguments: ["trainer.n_gpus_per_node=8", ...]`.

In the run folder, next to what `VerlEngine` writes, verl/ has two files of prompts, and recipe.json, from which verl's
reward workers build tasks and grader.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.campaign.engine import Listener, Order, Plan, Progress
from entrostat.engine.train import grader_of
from entrostat.errors import EntrostatError
from entrostat.grading import CodeGrader
from entrostat.integrations.verl.engine import VerlEngine, quoted
from entrostat.integrations.verl.loss import AGGREGATIONS, NO_LIMIT
from entrostat.objective import ClipRule, DualClip
from entrostat.recipe import Recipe, RecipeError, build_objective, parse_recipe
from entrostat.recipe.sections import KlRecipe
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run, atomic_write
from entrostat.tasks.sources import AnyTask

SCALED = {"grpo": True, "dr-grpo": False}  # whether the advantage is divided by the group's standard deviation
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}
AS_IT_IS = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # a prompt without a chat template
SOURCE = "entrostat"
NOT_CARRIED = ("measure_change", "first_order", "information")  # keys of control that are refused unless off
TRAIN_FILE, HELD_OUT_FILE = "train.parquet", "held-out.parquet"


def build_verl_engine(
    recipe: Recipe,
    tasks: TaskSplits,
    grader: CodeGrader,  # noqa: ARG001
    listener: Listener | None = None,
) -> RecipeEngine:
    """The engine for a recipe's campaigns. RecipeError: the recipe has a setting that verl does not support."""
    if find_spec("verl") is None:
        raise RecipeError("engine: 'verl' cannot be used here (verl is not installed); pip install 'entrostat[verl]'")
    refuse_what_verl_cannot_do(recipe)
    return RecipeEngine(recipe, tasks, listener)


class RecipeEngine:
    """`VerlEngine` with the command line, data and reward of a recipe. A step is an optimizer step."""

    def __init__(self, recipe: Recipe, tasks: TaskSplits, listener: Listener | None = None) -> None:
        self.recipe, self.tasks, self.listener = recipe, tasks, listener

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """See `VerlEngine.run`."""
        home = record.path / "verl"
        home.mkdir(parents=True, exist_ok=True)
        atomic_write(home / "recipe.json", self.recipe.model_dump_json().encode())
        write_rows(self.tasks, home)
        given = verl_settings(self.recipe, home.absolute(), has_chat_template(start.path))
        engine = VerlEngine(
            [*(f"{key}={in_hydra(value)}" for key, value in given.items()), *self.recipe.engine_arguments],
            every=self.recipe.evaluation.every,
            report=self.recipe.evaluation.report,
            save_every=self.recipe.campaign.checkpoint_every,
            optimizer_steps=self.recipe.update.steps_per_batch,
            listener=self.listener,
        )
        return engine.run(start, plan, decide, record)


def verl_settings(recipe: Recipe, home: Path, chat_template: bool) -> dict[str, Any]:
    """A recipe's numbers under verl's keys; home: the folder with the recipe and the tasks. One rollout batch is one of
    verl's training steps, of update.epochs x update.minibatches optimizer steps.
    """
    rollout, update, evaluation = recipe.rollout, recipe.update, recipe.evaluation
    control = recipe.control.model_dump(mode="json")
    whole = build_objective(recipe).rule
    band = whole.band if isinstance(whole, DualClip) else whole
    assert isinstance(band, ClipRule), "every objective's own band is constant"
    if isinstance(whole, DualClip) and control["strategy"] is None:
        widths = {"upper": band.upper.intercept, "lower": band.lower.intercept}
        control["strategy"] = {"name": "dual-clip", **widths, "cap": whole.cap}
    most = min(rollout.samples, update.microbatch_rows)
    at_a_time = max(rows for rows in range(1, most + 1) if rollout.samples % rows == 0)
    actor, sampler, reward = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "reward.custom_reward_function"
    return {
        "data.train_files": home / TRAIN_FILE,
        "data.val_files": home / HELD_OUT_FILE,
        "data.seed": recipe.seed,
        "data.train_batch_size": rollout.prompts,
        "data.max_response_length": rollout.max_new_tokens,
        "algorithm.filter_groups.enable": rollout.resample is None,
        "algorithm.filter_groups.metric": "reward",
        f"{sampler}.n": rollout.samples,
        f"{sampler}.temperature": rollout.temperature,
        f"{sampler}.val_kwargs.n": evaluation.samples,
        f"{sampler}.val_kwargs.temperature": evaluation.temperature,
        f"{sampler}.val_kwargs.do_sample": True,
        f"{sampler}.log_prob_micro_batch_size_per_gpu": at_a_time,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": at_a_time,
        **({} if chat_template else {"actor_rollout_ref.model.custom_chat_template": AS_IT_IS}),
        f"{actor}.strategy": "fsdp2",
        f"{actor}.fsdp_config.model_dtype": DTYPES[recipe.policy.dtype],
        f"{actor}.ppo_mini_batch_size": rollout.prompts // update.minibatches,
        f"{actor}.ppo_micro_batch_size_per_gpu": at_a_time,
        f"{actor}.ppo_epochs": update.epochs,
        f"{actor}.loss_agg_mode": AGGREGATIONS[update.aggregate],
        f"{actor}.loss_scale_factor": rollout.max_new_tokens,
        f"{actor}.policy_loss.loss_mode": "entrostat_controlled",
        f"{actor}.clip_ratio_low": band.lower.intercept,  # without a strategy
        f"{actor}.clip_ratio_high": band.upper.intercept,
        f"{actor}.clip_ratio_c": NO_LIMIT,  # control.dual_clip is part of the controller
        **kl_settings(update.kl),
        f"{actor}.entropy_coeff": 0.0,
        f"{actor}.calculate_entropy": control["bonus"] is not None or bool(control["parts"]),
        f"{actor}.grad_clip": update.max_grad_norm or NO_LIMIT,
        f"{actor}.optim.clip_grad": update.max_grad_norm or NO_LIMIT,
        f"{actor}.optim.lr": update.learning_rate,
        f"{actor}.optim.lr_warmup_steps": -(-update.warmup_steps // update.steps_per_batch),
        f"{actor}.optim.weight_decay": update.weight_decay,
        f"{actor}.optim.betas": list(update.betas),
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": SCALED[str(update.advantage)],
        f"{sampler}.calculate_log_probs": control["correction"] is not None or bool(control["parts"]),
        f"{reward}.path": f"pkg://{__name__}",
        f"{reward}.name": "graded",
        f"+{reward}.reward_kwargs.recipe": home / "recipe.json",
        "reward.num_workers": recipe.grading.workers,
        "trainer.v1.trainer_mode": "entrostat",
        "+trainer.v1.entrostat": {
            **{key: value for key, value in control.items() if key not in NOT_CARRIED},
            "objective": update.objective,
            "kl_cov": update.kl_cov and update.kl_cov.model_dump(),
            # a campaign may be shorter than the schedule
            "total_steps": recipe.campaign.schedule_steps or recipe.campaign.steps,
        },
    }


def kl_settings(kl: KlRecipe | None) -> dict[str, Any]:
    """A recipe's penalty under verl's keys; its estimates have the same names. Departs: verl limits ln pi - ln pi_ref
    to 20 and k3 to 10.
    """
    actor, place = "actor_rollout_ref.actor", kl.place if kl else None
    given: dict[str, Any] = {f"{actor}.use_kl_loss": place == "loss", "algorithm.use_kl_in_reward": place == "reward"}
    if kl and place == "loss":
        given |= {f"{actor}.kl_loss_coef": kl.coefficient, f"{actor}.kl_loss_type": kl.estimate}
    elif kl:
        fixed = {"algorithm.kl_ctrl.type": "fixed", "algorithm.kl_ctrl.kl_coef": kl.coefficient}
        given |= {"algorithm.kl_penalty": kl.estimate, **fixed}
    return given


def refuse_what_verl_cannot_do(recipe: Recipe) -> None:
    """Raise RecipeError, with the field, its value and the allowed ones, if verl would not follow the recipe."""
    update, control, per_batch = recipe.update, recipe.control, recipe.update.steps_per_batch
    allowed: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "threads": (recipe.threads, (None,)),
        "update.advantage": (update.advantage, tuple(SCALED)),
        "update.failure_reward": (update.failure_reward, (0,)),
        **(
            {
                "update.kl.kind": (update.kl.kind, ("fixed",)),
                "update.kl.estimate": (update.kl.estimate, ("k1", "k2", "k3")),
                "update.kl.reference": (update.kl.reference, ("start",)),
            }
            if update.kl
            else {}
        ),
        "update.optimizer": (update.optimizer, ("adamw",)),
        "update.old_logp": (update.old_logp, ("recomputed",)),
        "control.measure_change": (control.measure_change, (False,)),
        "control.first_order": (control.first_order, (False,)),
        "control.information": (control.information and "on", (None,)),
        "campaign.optimizer": (recipe.campaign.optimizer, ("reset",)),
    }
    for field, (value, choices) in allowed.items():
        if value not in choices:
            wanted = " or ".join("null" if choice is None else str(choice) for choice in choices)
            raise RecipeError(f"{field}: got {value!r}, which engine verl cannot follow; set it to {wanted}")
    if build_objective(recipe).compares:
        raise RecipeError(
            f"update.objective: got {update.objective['name']!r}, which compares the tokens of a whole batch, and "
            "engine verl has one micro-batch at a time; set it to clip"
        )
    for field, steps in (("campaign.steps", recipe.campaign.steps), ("evaluation.every", recipe.evaluation.every)):
        if steps is not None and steps % per_batch:
            raise RecipeError(
                f"{field}: got {steps}, but engine verl stops only between rollout batches, each of {per_batch} "
                f"optimizer steps (update.epochs x update.minibatches); give a multiple of {per_batch}"
            )


def write_rows(tasks: TaskSplits, folder: Path) -> None:
    """The tasks as rows of verl's data sets, a file for training and one for the other splits; `extra_info` has the
    split and the task's id.
    """
    from datasets import Dataset

    held_out = {"select": tasks.select, "report": tasks.report, "ood": tasks.ood}
    for name, splits in ((TRAIN_FILE, {"train": tasks.train}), (HELD_OUT_FILE, held_out)):
        rows = [(split, task) for split, members in splits.items() for task in members]
        Dataset.from_list([_row(index, *row) for index, row in enumerate(rows)]).to_parquet(str(folder / name))


def _row(index: int, split: str, task: AnyTask) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": task.prompt}],
        "data_source": SOURCE,
        "reward_model": {"style": "rule", "ground_truth": task.id},
        "extra_info": {"split": split, "index": index, "task": task.id},
    }


def graded(
    data_source: str,  # noqa: ARG001
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],  # noqa: ARG001
    *,
    recipe: str,
    **_: Any,
) -> dict[str, float]:
    """verl's reward function: 1 for a completion that passes its task, whose id is `ground_truth`, and 0 otherwise.

    recipe: the file with the run's recipe. EntrostatError: the completion could not be graded twice.
    """
    tasks, grader, lock = _grading(recipe)
    for _attempt in range(2):
        with lock:
            (verdict,) = grader.grade([(tasks[ground_truth], solution_str)])
        if verdict.reward is not None:
            return {"score": float(verdict.reward), "acc": float(verdict.passed)}
    raise EntrostatError(
        f"task {ground_truth!r}: a completion could not be graded ({verdict.detail}); fix the grading and start the "
        "same command again, which resumes the run"
    )


@cache
def _grading(recipe: str) -> tuple[dict[str, AnyTask], CodeGrader, Lock]:
    """Tasks by id and a grader of one worker, once per process of verl's."""
    wanted = parse_recipe(json.loads(Path(recipe).read_bytes()), origin=recipe)
    alone = wanted.model_copy(update={"grading": wanted.grading.model_copy(update={"workers": 1})})
    splits = TaskSplits.of(wanted.tasks)
    every: Sequence[AnyTask] = [*splits.train, *splits.select, *splits.report, *splits.ood]
    return {task.id: task for task in every}, grader_of(alone), Lock()


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder formats prompts itself."""
    from transformers import AutoTokenizer

    return bool(getattr(AutoTokenizer.from_pretrained(folder), "chat_template", None))


def in_hydra(value: Any) -> str:
    """A value of a recipe in hydra's grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{in_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(in_hydra, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quoted(value) if isinstance(value, str | Path) else str(value)
