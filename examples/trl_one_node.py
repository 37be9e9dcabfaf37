"""GRPO under a recipe's controller on one node of 8 GPUs: FSDP2 by accelerate, rollouts by vLLM on the same GPUs.

    pip install 'entrostat[trl]' vllm
    accelerate launch --config_file examples/fsdp2.yaml examples/trl_one_node.py \\
        --recipe recipes/flexible-entropy/qwen2.5-math-7b.yaml --data train.jsonl

The recipe gives the model, the sizes of batch and group, the learning rate, the length and the whole section `control`.
train.jsonl is yours: a JSON object a line with the texts "prompt" and "solution"; the reward is the exact match of the
last number.
"""

import argparse
import re
from pathlib import Path

from datasets import load_dataset
from trl import GRPOConfig

from entrostat.integrations.trl.trainer import EntropyGRPOTrainer
from entrostat.recipe import build_controller, load_recipe

GPUS = 8
PER_GPU = 8  # completions of a micro-batch


def right_number(completions: list[str], solution: list[str], **_: object) -> list[float]:
    """1 where the last number of a completion is the solution."""
    found = [re.findall(r"-?\d+(?:\.\d+)?", text) for text in completions]
    return [float(bool(numbers) and numbers[-1] == wanted) for numbers, wanted in zip(found, solution, strict=True)]


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/flexible-entropy/qwen2.5-math-7b.yaml"))
    parser.add_argument("--data", default="train.jsonl")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    rollout, update = recipe.rollout, recipe.update
    micro_batches = rollout.prompts * rollout.samples // (GPUS * PER_GPU)
    config = GRPOConfig(
        output_dir="runs/trl-node",
        max_steps=recipe.campaign.steps,
        per_device_train_batch_size=PER_GPU,
        gradient_accumulation_steps=micro_batches // update.minibatches,
        steps_per_generation=micro_batches,  # more than the accumulation: several optimizer steps per batch
        num_iterations=update.epochs,
        num_generations=rollout.samples,
        max_completion_length=rollout.max_new_tokens,
        temperature=rollout.temperature,
        learning_rate=update.learning_rate,
        beta=0.0,
        bf16=True,
        gradient_checkpointing=True,
        use_vllm=True,
        vllm_mode="colocate",
        logging_steps=1,
        save_steps=20,
    )
    trainer = EntropyGRPOTrainer(
        model=recipe.policy.path,
        reward_funcs=right_number,
        args=config,
        train_dataset=load_dataset("json", data_files=args.data, split="train"),
        controller=build_controller(recipe),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
