"""Real runs of TRL's GRPOTrainer on the embedded policy, healthy and made to fail, for the labelled set.

python benchmarks/diagnose/trl_runs.py CONDITION SEED OUT    # needs `trl`; two minutes on one core; writes OUT.json
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from entrostat.engine.policy import embedded_folder
from entrostat.grading import CodeGrader
from entrostat.tasks import listcraft

Reward = Callable[..., list[float]]


def graded(split: str, levels: tuple[int, ...]) -> tuple[Dataset, Reward]:
    """Tasks of listcraft, and the reward of passing their tests."""
    tasks = {task.prompt: task for task in listcraft.tasks(split, 48, 0, levels)}  # type: ignore[arg-type]
    grader = CodeGrader(workers=1)

    def passed(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        pairs = [(tasks[prompt], text) for prompt, text in zip(prompts, completions, strict=True)]
        return [verdict.reward or 0.0 for verdict in grader.grade(pairs)]

    return Dataset.from_list([{"prompt": prompt} for prompt in tasks]), passed


def nothing(completions: list[str], **_: object) -> list[float]:
    return [0.0 for _ in completions]


def one_word(completions: list[str], **_: object) -> list[float]:
    """Pays for one character over and over: what collapses a policy's entropy."""
    return [text.count("x") / max(len(text), 1) for text in completions]


def longer(completions: list[str], **_: object) -> list[float]:
    """Pays for never coming to an end."""
    return [len(re.sub(r"\s", "", text)) / 200 for text in completions]


CONDITIONS: dict[str, dict[str, object]] = {
    "healthy": {"learning_rate": 2e-4, "num_iterations": 1},
    "healthy-beta": {"learning_rate": 2e-4, "num_iterations": 2, "beta": 0.04, "epsilon_high": 0.28},
    "all-wrong": {"reward": nothing, "learning_rate": 1e-4},
    "entropy-collapse": {"reward": one_word, "learning_rate": 2e-3, "num_iterations": 2},
    "entropy-explosion": {"learning_rate": 1e-3, "entropy_coef": 0.5},
    "truncation": {"reward": longer, "learning_rate": 2e-3, "num_iterations": 2},
    "short": {"learning_rate": 2e-4, "num_iterations": 1, "max_completion_length": 12},
    "too-fast": {"learning_rate": 5e-3, "num_iterations": 2},
    "kl-runaway": {"reward": one_word, "learning_rate": 1e-3, "beta": 1e-6, "num_iterations": 2},
    "stale": {"learning_rate": 2e-3, "num_iterations": 4, "epsilon": 0.005, "epsilon_high": 0.005},
    "not-finite": {"learning_rate": 1e6, "max_grad_norm": 0.0, "num_iterations": 1},
}


def run(condition: str, seed: int, out: Path, steps: int = 60, callback: TrainerCallback | None = None) -> None:
    torch.set_num_threads(1)
    settings = dict(CONDITIONS[condition])
    reward = settings.pop("reward", None)
    dataset, passed = graded("train", (1, 2, 3))
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            seed=seed,
            max_steps=steps,
            per_device_train_batch_size=64,
            num_generations=8,
            max_completion_length=settings.pop("max_completion_length", 48),  # type: ignore[arg-type]
            logging_steps=1,
            save_strategy="steps",
            save_steps=steps,
            save_only_model=True,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=3,
            disable_tqdm=True,
            **settings,  # type: ignore[arg-type]
        )
        trainer = GRPOTrainer(
            model=str(embedded_folder()), reward_funcs=reward or passed, args=config, train_dataset=dataset
        )
        if callback:
            trainer.add_callback(callback)
        trainer.train()
        shutil.copy(next(Path(folder).glob("checkpoint-*/trainer_state.json")), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("condition", choices=CONDITIONS)
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path)
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
