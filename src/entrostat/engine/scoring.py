"""Exact statistics of completions that any engine wrote, by one forward pass over the tokens, none of them sampled.

For every token a of a completion, with p = softmax(z / temperature) of the model, in natural logarithms:

    logp          ln p_a                                        nats
    entropy       H = -sum_x p_x ln p_x                         nats
    collision     sum_x p_x^2
    correction    C = sum_x p_x^2 (ln p_x + H)                  nats
    sensitivity   T = C - p_a (ln p_a + H)                      nats per unit of logit step (arXiv 2605.11775)
    polarity      A T, where there is an advantage A: > 0 the update raises this state's entropy, < 0 it lowers it
    kl_k1, kl_k3  -ln w and w - 1 - ln w with w = p_a / mu_a, where the sampler's ln mu_a is known: unbiased estimates
                  of KL(mu || p), nats per token
    sampler_entropy_low, _high    bounds of the entropy of mu, where its top k is known, nats

The advantage is the file's, or reward - mean reward of the completions with the same prompt (GRPO without its division
by the standard deviation, as in Dr. GRPO, arXiv 2503.20783), which is 0 for a prompt with one completion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from entrostat.engine.completions import Completion
from entrostat.engine.policy import Policy
from entrostat.engine.sampler_logprobs import ScoreError
from entrostat.entropy import polarity, sensitivity
from entrostat.tokens import TokenStats, sampler_kl, token_stats

Rewards = Mapping[tuple[int, ...], float]  # mean reward by prompt


def batches(completions: Iterable[Completion], tokens: int) -> Iterator[list[Completion]]:
    """Neighbours, at most `tokens` of them at a time, padding included; a longer completion comes by itself."""
    batch: list[Completion] = []
    prompt = completion = 0
    for each in completions:
        widest = max(prompt, len(each.prompt)), max(completion, len(each.tokens))
        if batch and sum(widest) * (len(batch) + 1) > tokens:
            yield batch
            batch, widest = [], (len(each.prompt), len(each.tokens))
        batch.append(each)
        prompt, completion = widest
    if batch:
        yield batch


@torch.no_grad()
def score_completions(
    policy: Policy, completions: Sequence[Completion], temperature: float = 1.0, rewards: Rewards | None = None
) -> list[dict[str, Any]]:
    """One record per completion, in order: record, sample, id, tokens, and the statistics above as lists, one entry per
    token, to 7 significant digits; None where a value is infinite. What the completion lacks is left out of the record.

    All completions are read in one forward pass. temperature: positive. rewards: mean reward by prompt; without it
    those of these completions. The results do not depend on how a file is cut into batches, except for rounding.
    Raises ScoreError for a temperature that is not positive and finite, and for logits that are NaN or +inf.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ScoreError(f"temperature is {temperature}; allowed: a finite number > 0. Give the sampler's")
    means = mean_rewards(completions) if rewards is None else rewards
    filled = [each for each in completions if each.tokens]
    stats = iter(_statistics(policy, filled, temperature) if filled else [])
    empty = TokenStats(*torch.zeros(4, 0))
    return [_record(each, next(stats) if each.tokens else empty, means) for each in completions]


def mean_rewards(completions: Iterable[Completion]) -> dict[tuple[int, ...], float]:
    """Mean reward of the completions with the same prompt."""
    sums: dict[tuple[int, ...], tuple[float, int]] = {}
    for each in completions:
        if each.reward is not None:
            total, count = sums.get(each.prompt, (0.0, 0))
            sums[each.prompt] = total + each.reward, count + 1
    return {prompt: total / count for prompt, (total, count) in sums.items()}


def _statistics(policy: Policy, completions: Sequence[Completion], temperature: float) -> list[TokenStats]:
    """The statistics of each completion's tokens, on the CPU."""
    prompts, prompt_mask = _padded([each.prompt for each in completions], policy.pad_id, left=True)
    tokens, mask = _padded([each.tokens for each in completions], policy.pad_id, left=False)
    on_device = [part.to(policy.device) for part in (prompts, prompt_mask, tokens, mask)]
    try:
        found = token_stats(policy.logits(*on_device), on_device[2], temperature)
    except ValueError as error:
        raise ScoreError(
            f"{completions[0].where} and after: {policy.source} gives no distribution ({error})"
        ) from error
    columns = [column.cpu() for column in (found.logp, found.entropy, found.collision, found.correction)]
    return [TokenStats(*(column[row, keep] for column in columns)) for row, keep in enumerate(mask)]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of ids (B, W) and where they are no padding (B, W)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        places = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, places] = torch.tensor(row, dtype=torch.long)
        mask[i, places] = True
    return ids, mask


def _record(each: Completion, stats: TokenStats, means: Rewards) -> dict[str, Any]:
    columns = {
        "logp": stats.logp,
        "entropy": stats.entropy,
        "collision": stats.collision,
        "correction": stats.correction,
        "sensitivity": sensitivity(stats),
    }
    if (advantage := _advantage(each, means)) is not None:
        columns["polarity"] = polarity(stats, advantage)
    if each.sampler_logp is not None:
        own = torch.tensor(each.sampler_logp, dtype=torch.float64)
        columns["kl_k1"], columns["kl_k3"] = sampler_kl(stats.logp, own)
    record: dict[str, Any] = {"record": each.record, "sample": each.sample, "id": each.identity}
    record |= {"tokens": list(each.tokens), **{name: _rounded(column) for name, column in columns.items()}}
    if each.entropy_bounds is not None:
        for place, name in enumerate(("sampler_entropy_low", "sampler_entropy_high")):
            record[name] = [None if pair is None else _digits(pair[place]) for pair in each.entropy_bounds]
    return record


def _advantage(each: Completion, means: Rewards) -> Tensor | None:
    if each.advantage is not None:
        return torch.tensor(each.advantage, dtype=torch.float32)
    if each.reward is not None:
        return torch.full((len(each.tokens),), each.reward - means[each.prompt])
    return None


def _rounded(values: Tensor) -> list[float | None]:
    return [_digits(value) for value in values.tolist()]


def _digits(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
