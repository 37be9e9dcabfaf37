"""The embedded engine and TRL on the same model, tasks, batch and method: entropy by step, and tokens per second.

    python benchmarks/trl/side_by_side.py embedded --seed 0 --steps 32
    python benchmarks/trl/side_by_side.py trl --seed 0 --steps 32

GRPO under ID on listcraft: 16 prompts x 8 completions of up to 48 tokens, two optimizer steps per batch, learning rate
1e-4 after a warm-up of 3, float32, one thread. A run prints one JSON line. Tokens are sampled completion tokens;
seconds are those of the training loop, with grading and without evaluation or start; cpu_seconds are the same loop's of
the process, without the grader's children, for a machine that others load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from entrostat.campaign import Checkpoint, Naive, run_campaign
from entrostat.control import EntropyController, IncreaseThenDecrease
from entrostat.engine.local import LocalEngine
from entrostat.engine.policy import embedded_folder
from entrostat.engine.train import REMEMBERED
from entrostat.grading import CodeGrader
from entrostat.recipe import Recipe, parse_recipe
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run


def recipe(seed: int, steps: int) -> Recipe:
    return parse_recipe(
        {
            "name": "side-by-side",
            "seed": seed,
            "threads": 1,
            "tasks": {"train": 48, "select": 4, "report": 4},
            "update": {"epochs": 2, "learning_rate": 1e-4, "warmup_steps": 3},
            "control": {"strategy": "id"},
            "evaluation": {"every": 100000, "samples": 1, "pass_at": [1]},
            "campaign": {"steps": steps, "checkpoint_every": 100000},
        }
    )


class Clock:
    """Wall and CPU seconds and page faults from `start` to `stop`."""

    def start(self) -> None:
        self.seconds, self.cpu_seconds, self.page_faults = -time.perf_counter(), -time.process_time(), -_page_faults()

    def stop(self) -> None:
        self.seconds += time.perf_counter()
        self.cpu_seconds += time.process_time()
        self.page_faults += _page_faults()


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def embedded(seed: int, steps: int) -> dict:
    clock = Clock()

    def listen(line: dict) -> None:
        if "split" in line and line["step"] == 0:  # the evaluation before the first batch
            clock.start()
        elif "split" not in line and line["step"] == steps:
            clock.stop()

    settings = recipe(seed, steps)
    tasks = TaskSplits.of(settings.tasks)
    with CodeGrader(2, 2.0, isolation="best-effort", memo=REMEMBERED) as grader:
        engine = LocalEngine(settings, tasks, grader, listen)
        record = Run.create(Path(tempfile.mkdtemp()) / "run", settings.model_dump(mode="json"), seed, {}, {})
        run_campaign(engine, Naive(steps=steps), Checkpoint(embedded_folder(), step=0), record)
    lines = record.steps()
    return {
        "entropy": [line["entropy"] for line in lines],
        "reward": [line["reward"] for line in lines],
        "tokens": sum(line["tokens"]["rollout"] for line in lines),
        **vars(clock),
    }


def trl(seed: int, steps: int) -> dict:
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig

    from entrostat.integrations.trl.tasks import graded_reward, task_dataset
    from entrostat.integrations.trl.trainer import EntropyGRPOTrainer

    clock = Clock()

    class Listener(TrainerCallback):
        def on_train_begin(self, *_, **__):
            clock.start()

        def on_train_end(self, *_, **__):
            clock.stop()

    settings = recipe(seed, steps)
    tasks = TaskSplits.of(settings.tasks).train
    config = GRPOConfig(
        tempfile.mkdtemp(),
        per_device_train_batch_size=128,
        num_generations=8,
        num_iterations=2,
        steps_per_generation=1,
        max_completion_length=48,
        max_steps=steps,
        learning_rate=1e-4,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=3,
        max_grad_norm=1.0,
        loss_type="dapo",
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )
    with CodeGrader(2, 2.0, isolation="best-effort", memo=REMEMBERED) as grader:
        trainer = EntropyGRPOTrainer(
            AutoModelForCausalLM.from_pretrained(embedded_folder()),
            graded_reward(tasks, grader),
            config,
            task_dataset(tasks),
            processing_class=AutoTokenizer.from_pretrained(embedded_folder()),
            controller=EntropyController(IncreaseThenDecrease(), steps),
            callbacks=[Listener()],
        )
        trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    lengths = [line["completions/mean_length"] for line in lines if "completions/mean_length" in line]
    return {
        "entropy": [line["entrostat/entropy"] for line in lines],
        "reward": [line.get("reward") for line in lines],
        "tokens": sum(128 * length for length in lengths),
        **vars(clock),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["embedded", "trl"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):  # TRL prints its log
        found = {"embedded": embedded, "trl": trl}[args.engine](args.seed, args.steps)
    found["entropy"] = [round(nats, 4) for nats in found["entropy"]]
    rates = {f"tokens_per_{clock[:-1]}": found["tokens"] / found[clock] for clock in ("seconds", "cpu_seconds")}
    print(json.dumps({"engine": args.engine, "seed": args.seed, **found, **rates}))


if __name__ == "__main__":
    main()
