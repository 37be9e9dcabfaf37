"""Evaluation of a policy on a split of tasks, and the completions that a run folder keeps for a person to read.

A sample line of the training split carries, beside its text,
    "advantage": A,  "tokens": {"text": [...], "logp": [...], "entropy": [...], "sensitivity": [...]}
with one list entry per token of the completion, the end token included: its piece of the text, ln p_a, H and
T = C - p_a (ln p_a + H) under the policy that wrote it, in nats to four significant digits. The pieces join to the
completion's text. They give the surprisal -ln p_a and the polarity A T, before any reweighting.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from entrostat.campaign.loop import EVERYTHING
from entrostat.engine.policy import Policy, Trainable
from entrostat.engine.rollout import Rollout, Sampling, derived_seed, sample_graded
from entrostat.entropy import sensitivity
from entrostat.grading import CodeGrader, Outcome, Verdict, WorkerError
from entrostat.recipe import Recipe
from entrostat.runs.passk import mean_over_tasks
from entrostat.tasks.sources import AnyTask
from entrostat.tokens import token_stats

SHOWN = 8  # tasks of an evaluation, each with a completion that is kept


@dataclass(frozen=True, slots=True)
class Evaluation:
    """line: the fields of an evaluation line that do not depend on the run. samples: one completion of some tasks."""

    line: dict[str, Any]
    samples: list[dict[str, Any]]


def evaluate(
    policy: Policy,
    grader: CodeGrader,
    tasks: Sequence[AnyTask],
    sampling: Sampling,
    seed: int | Sequence[int],
    *,
    pass_at: Sequence[int],
) -> Evaluation:
    """Draw completions of every task with fixed seeds and grade them; seed: one for all tasks, or one per task.

    (n, c) of a task counts graded completions only: an infrastructure error is neither right nor wrong. Tasks with
    fewer than k graded completions are left out of the mean pass@k.
    Raises WorkerError if a task has none: pass@1 of the other tasks alone would not measure the split.
    """
    started = time.perf_counter()
    sampled = sample_graded(policy, grader, tasks, sampling, seed)
    rollout, verdicts, samples = sampled.rollout, sampled.verdicts, sampling.samples
    results, distinct = [], []
    for i, task in enumerate(tasks):
        own = slice(i * samples, (i + 1) * samples)
        graded = [v for v in verdicts[own] if v.reward is not None]
        if not graded:
            raise WorkerError(
                f"evaluation: no completion of task {task.id!r} could be graded ({verdicts[own][0].detail}); "
                "fix the grading and start the same command again, which resumes the run"
            )
        results.append([task.id, len(graded), sum(v.passed for v in graded)])
        solved = zip(rollout.texts[own], verdicts[own], strict=True)
        distinct.append(len({text for text, verdict in solved if verdict.passed}))
    line: dict[str, Any] = {
        "results": results,
        "pass_at": {str(k): _pass_at(results, k) for k in pass_at},
        "distinct": fmean(distinct),
        "hard": _hard(tasks, results),
        "entropy": float(rollout.entropy.sum()) / rollout.token_count,
        **completion_metrics(rollout, verdicts),
        "tokens": rollout.token_count,
        "seconds": time.perf_counter() - started,
    }
    return Evaluation(line, sample_lines(tasks[:SHOWN], rollout, verdicts, samples))


def evaluate_split(
    recipe: Recipe,
    grader: CodeGrader,
    policy: Policy,
    split: str,
    tasks: Sequence[AnyTask],
    part: slice = EVERYTHING,
) -> dict[str, Any]:
    """Evaluate the tasks `part` of a split as the recipe says; see `entrostat.campaign.loop.Host.evaluate`.

    Each task of a part has its own seed, so its result does not depend on what else is evaluated.
    """
    seed: int | list[int] = derived_seed(recipe.tasks.seed, "evaluation", split)
    if part != EVERYTHING:
        tasks = tasks[part]
        seed = [derived_seed(recipe.tasks.seed, "evaluation", split, task.id) for task in tasks]
    evaluation = evaluate(policy, grader, tasks, Sampling.evaluation(recipe), seed, pass_at=recipe.evaluation.pass_at)
    return {**evaluation.line, "samples": evaluation.samples}


def completion_metrics(rollout: Rollout, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Mean length in tokens, share cut at the limit, and the number of completions with each outcome."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {
        "length": float(rollout.lengths.float().mean()),
        "truncated": float(rollout.truncated.float().mean()),
        "verdicts": {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome]},
    }


def group_metrics(groups: Sequence[Sequence[float | None]]) -> dict[str, float]:
    """Shares of prompts whose graded completions are mixed, all passed, and all failed; only mixed ones teach."""
    outcomes = [{reward > 0 for reward in group if reward is not None} for group in groups]
    return {
        "mixed": sum(len(outcome) == 2 for outcome in outcomes) / len(groups),
        "all_right": sum(outcome == {True} for outcome in outcomes) / len(groups),
        "all_wrong": sum(outcome == {False} for outcome in outcomes) / len(groups),
    }


def _pass_at(results: Sequence[Sequence[Any]], k: int) -> float | None:
    counts = [(n, c) for _, n, c in results if n >= k]
    return mean_over_tasks(counts, k) if counts else None


def _hard(tasks: Sequence[AnyTask], results: Sequence[Sequence[Any]]) -> float | None:
    """pass@1 over the tasks of the highest level; None if all tasks have one level."""
    levels = [getattr(task, "level", 0) for task in tasks]
    if min(levels) == max(levels):
        return None
    return _pass_at([result for level, result in zip(levels, results, strict=True) if level == max(levels)], 1)


UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are not a character yet


def sample_lines(
    tasks: Sequence[AnyTask], rollout: Rollout, verdicts: Sequence[Verdict], samples: int
) -> list[dict[str, Any]]:
    """The first completion of each task, for a person to read."""
    return [
        {
            "task": task.id,
            "prompt": task.prompt,
            "completion": rollout.texts[i * samples],
            "outcome": verdicts[i * samples].outcome.value,
        }
        for i, task in enumerate(tasks)
    ]


@torch.no_grad()
def token_records(
    policy: Trainable, rollout: Rollout, rows: Sequence[int], temperature: float
) -> list[dict[str, list[Any]]]:
    """The fields "tokens" of the completions `rows`, from a forward pass; call it before the policy is updated."""
    some, device = rollout.rows(torch.tensor(rows)), policy.device
    ids = some.completions.to(device)
    logits = policy.logits(some.prompts.to(device), some.prompt_mask.to(device), ids, some.mask.to(device))
    stats = token_stats(logits, ids, temperature)
    columns = {"logp": stats.logp, "entropy": stats.entropy, "sensitivity": sensitivity(stats)}
    return [
        {
            "text": text_pieces(policy.decode, ids[i, :length].tolist(), some.texts[i]),
            **{name: _rounded(values[i, :length]) for name, values in columns.items()},
        }
        for i, length in enumerate(some.lengths.tolist())
    ]


def text_pieces(decode: Callable[[list[int]], str], ids: Sequence[int], text: str) -> list[str]:
    """The piece of `text`, which is `decode(ids)`, that each token adds; the pieces join to it.

    A token that adds nothing visible (an end token, the first bytes of a character that the next token completes) has
    an empty piece. A token is decoded after those of the last piece, as some decoders drop a leading space. The text
    is cut by the pieces' lengths, so the pieces are the text's even where a later token changes how bytes are read.
    """
    cuts = [0]
    start = read = 0
    for end in range(1, len(ids) + 1):
        known, grown = decode(list(ids[start:read])), decode(list(ids[start:end]))
        whole = len(grown) > len(known) and not grown.endswith(UNFINISHED)
        cuts.append(cuts[-1] + (len(grown) - len(known) if whole else 0))
        if whole:
            start, read = read, end
    return [text[cut:after] for cut, after in pairwise([*cuts[:-1], len(text)])] if ids else []


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
