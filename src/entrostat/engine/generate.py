"""Samples of a policy in a file, for grading, and the settings beside it that a resumed file is checked against."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from entrostat.engine.policy import Policy
from entrostat.engine.rollout import Sampling, derived_seed, sample
from entrostat.runs import RunError
from entrostat.runs.files import append_line, atomic_write, read_lines
from entrostat.tasks.sources import AnyTask


def generate(
    policy: Policy,
    tasks: Sequence[AnyTask],
    out: str | Path,
    sampling: Sampling,
    seed: int = 0,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Append to `out`, JSON lines of "task_id", "sample" and "completion", until every task has samples 0 to n - 1,
    where n is `sampling.samples`.

    A sample depends on the seed, its task and n, not on the other tasks, so an interrupted run can be resumed and ends
    with the same file. The sampling settings are in a second file with the suffix .settings.json.
    progress is called with (tasks done, all tasks). Raises RunError if `out` has samples with other settings.
    """
    n, file = sampling.samples, Path(out)
    settings = {
        "model": policy.source,
        "n": n,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": seed,
    }
    refuse_other_settings(file, settings, "samples drawn")
    written = Counter(line["task_id"] for line in read_lines(file))
    waiting = [task for task in tasks if written[task.id] < n]
    size = max(1, sampling.batch_rows // n)
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        seeds = [derived_seed(seed, "samples", task.id) for task in batch]
        rollout = sample(policy, [task.prompt for task in batch], sampling, seeds)
        for row, text in enumerate(rollout.texts):
            task, number = batch[row // n], row % n
            if number >= written[task.id]:
                append_line(file, {"task_id": task.id, "sample": number, "completion": text})
        if progress:
            progress(len(tasks) - len(waiting) + start + len(batch), len(tasks))
    return file


def refuse_other_settings(out: Path, settings: dict[str, Any], what: str) -> None:
    """Write the settings beside a new `out`, with the suffix .settings.json; compare them if `out` exists.

    what: the results and the verb, as in "samples drawn". Raises RunError, naming the first setting that differs, or
    the settings file if it is damaged.
    """
    beside = out.with_suffix(".settings.json")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(beside, json.dumps(settings, indent=1).encode() + b"\n")
        return
    known = _read(beside) if beside.exists() else {}
    for field, value in settings.items():
        if known.get(field) != value:
            raise RunError(
                f"{out}: holds {what} with {field} {known.get(field, 'unknown')}, not {value}; choose another file "
                "with --out, or delete this one"
            )


def _read(file: Path) -> dict[str, Any]:
    """The settings. RunError: their file is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged ({error}); restore it, or choose another file with --out") from error
    if not isinstance(content, dict):
        raise RunError(f"{file}: holds no settings; restore it, or choose another file with --out")
    return content
