"""Sampling and grading at one time: completions are graded while longer ones of their batch are still being drawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from entrostat.engine.policy import Policy
from entrostat.engine.rollout import Rollout, sample
from entrostat.grading import CodeGrader, Verdict
from entrostat.tasks.sources import AnyTask


@dataclass(frozen=True, slots=True)
class GradedRollout:
    """Completions and their verdicts, in prompt order. waited: seconds from the last token to the last verdict."""

    rollout: Rollout
    verdicts: list[Verdict]
    waited: float


def sample_graded(
    policy: Policy,
    grader: CodeGrader,
    tasks: Sequence[AnyTask],
    samples: int,
    max_new_tokens: int,
    seed: int | Sequence[int],
    temperature: float,
    batch_rows: int,
) -> GradedRollout:
    """Draw `samples` completions of every task, and grade each as soon as it has left the batch; see `sample`."""
    under_way: list[tuple[Sequence[int], Future[list[Verdict]]]] = []
    clerk = ThreadPoolExecutor(1)

    def grade(rows: Sequence[int], texts: Sequence[str]) -> None:
        pairs = [(tasks[row // samples], text) for row, text in zip(rows, texts, strict=True)]
        under_way.append((rows, clerk.submit(grader.grade, pairs)))

    prompts = [task.prompt for task in tasks]
    try:
        rollout = sample(policy, prompts, samples, max_new_tokens, seed, temperature, batch_rows, grade)
        sampled = time.perf_counter()
        verdicts: dict[int, Verdict] = {}
        for rows, graded in under_way:
            verdicts |= zip(rows, graded.result(), strict=True)
    except BaseException:
        grader.interrupt()
        raise
    finally:
        clerk.shutdown(cancel_futures=True)
    return GradedRollout(rollout, [verdicts[row] for row in range(len(verdicts))], time.perf_counter() - sampled)
