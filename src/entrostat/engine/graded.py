"""Concurrent sampling and grading: completions are graded while longer ones of their batch are still being drawn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Draw `samples` completions of every task, and grade each once it has ended; see `sample`.

    Raises what `sample` and `CodeGrader.grade` raise; gradings in progress are ended first.
    """
    waiting: deque[tuple[int, str]] = deque()
    verdicts: dict[int, Verdict] = {}
    executor, futures = ThreadPoolExecutor(1), []

    def judge() -> None:
        """Grade all waiting completions in one batch."""
        batch = [waiting.popleft() for _ in range(len(waiting))]
        if batch:
            graded = grader.grade([(tasks[row // samples], text) for row, text in batch])
            verdicts.update(zip((row for row, _ in batch), graded, strict=True))

    def ended(rows: Sequence[int], texts: Sequence[str]) -> None:
        waiting.extend(zip(rows, texts, strict=True))
        futures.append(executor.submit(judge))

    prompts = [task.prompt for task in tasks]
    try:
        rollout = sample(policy, prompts, samples, max_new_tokens, seed, temperature, batch_rows, ended)
        sampled = time.perf_counter()
        for future in futures:
            future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)  # first, or the next future starts when this one has ended
        grader.interrupt()
        raise
    finally:
        executor.shutdown()
    return GradedRollout(rollout, [verdicts[row] for row in range(len(verdicts))], time.perf_counter() - sampled)
