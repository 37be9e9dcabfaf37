"""Samples of a policy in a file, for grading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from entrostat.engine.policy import Policy
from entrostat.engine.rollout import sample
from entrostat.engine.seeds import derived_seed
from entrostat.engine.settings_beside import refuse_other_settings
from entrostat.runs.files import append_line, read_lines
from entrostat.tasks.sources import AnyTask


def generate(
    policy: Policy,
    tasks: Sequence[AnyTask],
    out: str | Path,
    *,
    n: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_rows: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Append to `out`, JSON lines of "task_id", "sample" and "completion", until every task has samples 0 to n - 1.

    A sample depends on the seed, its task and n, not on the other tasks, so an interrupted run can be resumed and ends
    with the same file. The sampling settings are in a second file with the suffix .settings.json.
    progress is called with (tasks done, all tasks). Raises RunError if `out` has samples with other settings.
    """
    settings = {"model": policy.source, "n": n, "max_new_tokens": max_new_tokens, "temperature": temperature}
    file = Path(out)
    refuse_other_settings(file, {**settings, "seed": seed}, "samples drawn")
    written = Counter(line["task_id"] for line in read_lines(file))
    waiting = [task for task in tasks if written[task.id] < n]
    size = max(1, batch_rows // n)
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        seeds = [derived_seed(seed, "samples", task.id) for task in batch]
        rollout = sample(policy, [task.prompt for task in batch], n, max_new_tokens, seeds, temperature, batch_rows)
        for row, text in enumerate(rollout.texts):
            task, number = batch[row // n], row % n
            if number >= written[task.id]:
                append_line(file, {"task_id": task.id, "sample": number, "completion": text})
        if progress:
            progress(len(tasks) - len(waiting) + start + len(batch), len(tasks))
    return file
