"""GRPO under ID on one node of 8 GPUs: FSDP2 by accelerate, rollouts by vLLM on the same GPUs.

    pip install 'entrostat[trl]' vllm
    accelerate launch --config_file examples/fsdp2.yaml examples/trl_one_node.py

The data set needs the columns prompt and solution; the reward is the exact match of the last number.
"""

import re

from datasets import load_dataset
from trl import GRPOConfig

from entrostat import EntropyController
from entrostat.control import PolarityAware
from entrostat.integrations.trl_trainer import EntropyGRPOTrainer
from entrostat.strategies import IncreaseThenDecrease

MODEL = "Qwen/Qwen2.5-Math-7B"
DATA = "train.jsonl"
STEPS = 400


def right_number(completions: list[str], solution: list[str], **_: object) -> list[float]:
    """1 where the last number of a completion is the solution."""
    found = [re.findall(r"-?\d+(?:\.\d+)?", text) for text in completions]
    return [float(bool(numbers) and numbers[-1] == wanted) for numbers, wanted in zip(found, solution, strict=True)]


def main() -> None:
    """Train and save."""
    config = GRPOConfig(
        output_dir="runs/trl-node",
        max_steps=STEPS,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=4,
        steps_per_generation=8,  # twice the accumulation: two optimizer steps a batch of completions
        num_generations=8,
        max_completion_length=4096,
        learning_rate=1e-6,
        bf16=True,
        gradient_checkpointing=True,
        use_vllm=True,
        vllm_mode="colocate",
        logging_steps=1,
        save_steps=20,
    )
    trainer = EntropyGRPOTrainer(
        model=MODEL,
        reward_funcs=right_number,
        args=config,
        train_dataset=load_dataset("json", data_files=DATA, split="train"),
        controller=EntropyController(IncreaseThenDecrease(), STEPS, reweighting=PolarityAware(strength=0.3), ema=0.9),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
