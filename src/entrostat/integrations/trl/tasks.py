"""The library's tasks for TRL: prompts as a data set, a grader as a reward function, pass@1 of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from entrostat.engine.policy import written_out
from entrostat.grading import CodeGrader
from entrostat.tasks.sources import AnyTask


def task_dataset(tasks: Sequence[AnyTask], tokenizer: Any = None) -> Any:
    """A `datasets.Dataset` with the columns that `graded_reward` needs, one row per task.

    tokenizer: if it has a chat template, each prompt is formatted by it as a user's turn.
    """
    from datasets import Dataset

    prompts = [written_out(task.prompt, tokenizer) for task in tasks]
    return Dataset.from_dict({"prompt": prompts, "task": [task.id for task in tasks]})


def graded_reward(tasks: Sequence[AnyTask], grader: CodeGrader) -> Callable[..., list[float | None]]:
    """A reward function: 1 for a completion that passes, 0 for one that fails, None where grading itself failed.

    A completion is text, or chat messages, of which the last one's text counts; a message without text fails.
    """
    by_id = {task.id: task for task in tasks}

    def passes(completions: list[Any], task: list[str], **_: Any) -> list[float | None]:
        pairs = [(by_id[name], _said(completion)) for name, completion in zip(task, completions, strict=True)]
        return [verdict.reward for verdict in grader.grade(pairs)]

    return passes


def _said(completion: Any) -> str:
    """The text of a completion; none where a model gave something else, such as a call of a tool."""
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        completion = completion[-1].get("content")
    return completion if isinstance(completion, str) else ""


@torch.no_grad()
def pass_counts(
    trainer: Any, tasks: Sequence[AnyTask], grader: CodeGrader, *, samples: int, seed: int
) -> list[list[Any]]:
    """[task id, graded completions, passed completions] of every task, sampled as the trainer samples, from a fixed
    seed that leaves torch's generator where it was.
    """
    tokenizer, model = trainer.processing_class, trainer.model
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        prompts = [written_out(task.prompt, tokenizer) for task in tasks]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        sampled = model.generate(
            input_ids=batch["input_ids"].to(model.device),
            attention_mask=batch["attention_mask"].to(model.device),
            generation_config=trainer.generation_config,
            num_return_sequences=samples,
        )
    model.train(training)
    texts = tokenizer.batch_decode(sampled[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    owners = [task for task in tasks for _ in range(samples)]
    verdicts = list(grader.grade(list(zip(owners, texts, strict=True))))
    rows = []
    for i, task in enumerate(tasks):
        graded = [v for v in verdicts[i * samples : (i + 1) * samples] if v.reward is not None]
        rows.append([task.id, len(graded), sum(v.passed for v in graded)])
    return rows
