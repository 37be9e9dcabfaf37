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

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entrostat.engine.completions import Completion, read_completions, refuse_other_settings
from entrostat.engine.policy import Policy
from entrostat.engine.sampler_logprobs import ScoreError
from entrostat.entropy import polarity, sensitivity
from entrostat.runs import RunError
from entrostat.runs.files import append_line, atomic_path, folder_digest, iterate_lines
from entrostat.tokens import TokenStats, effective_sample_size, sampler_kl, token_stats

Rewards = Mapping[tuple[int, ...], float]  # mean reward by prompt


def batches(completions: Iterable[Completion], tokens: int) -> Iterator[list[Completion]]:
    """Neighbours, at most `tokens` of them at a time, padding included; a longer completion is a batch of its own."""
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
    """Rows of ids (B, W) and where they are not padding (B, W)."""
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


SUFFIXES = (".jsonl", ".parquet")
ROWS = 1024  # of a group in a Parquet file


def score_file(
    policy: Policy,
    source: str | Path,
    out: str | Path,
    *,
    temperature: float = 1.0,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the record of `score_completions` for every completion of `source` to `out`, and return their summary.

    The whole of `source` is checked first. A killed run resumes after its last complete line when it is called
    again with the same arguments, and ends with the same bytes; the settings are beside `out`, with the
    suffix .settings.json.

    Args:
        policy: the model that scores; its tokenizer cuts whatever has no ids.
        source: what `completions` reads.
        out: ends in .jsonl, or in .parquet: the lines are then kept beside it, ending in .lines.jsonl.
        temperature: positive; that of the sampler's log-probabilities. vLLM's are at 1 whatever it samples at, unless
            logprobs_mode is processed_logprobs.
        batch_tokens: tokens read at a time, padding included. Logits take 4 V bytes of each token of the completions.
        progress: called with (completions scored, all completions).

    Raises:
        ScoreError, TaskError: a field of `source`, an argument, or pyarrow missing; nothing was written.
        RunError: `out` was made with other settings, or cannot be written.
    """
    source, out = Path(source), Path(out)
    refuse_output(source, out)
    refuse_numbers(temperature, batch_tokens)
    total, rewards = _surveyed(source, policy)
    lines = out if out.suffix == ".jsonl" else out.with_suffix(".lines.jsonl")
    refuse_other_settings(lines, _settings(policy, source, temperature, batch_tokens), "scores made")
    done = sum(1 for _ in iterate_lines(lines))
    if done > total:
        raise RunError(f"{lines}: has {done} lines for {total} completions; delete it, or choose another file")
    lines.touch()
    seen = 0
    for batch in batches(read_completions(source, policy), batch_tokens):
        if seen + len(batch) > done:
            for record in score_completions(policy, batch, temperature, rewards)[max(done - seen, 0) :]:
                append_line(lines, record)
        seen += len(batch)
        if progress:
            progress(seen, total)
    if out.suffix == ".parquet":
        _write_parquet(lines, out)
    return summarise(iterate_lines(lines))


def refuse_output(source: Path, out: Path) -> None:
    """Raise ScoreError where `out` is the file that is read, of an unknown kind, or of one that lacks its library."""
    if out.suffix not in SUFFIXES:
        raise ScoreError(f"--out: got {out}; allowed: a name that ends in {' or '.join(SUFFIXES)}")
    if source.resolve() in (out.resolve(), out.with_suffix(".lines.jsonl").resolve()):
        raise ScoreError(f"--out: got {out}, where the completions are; choose another name")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ScoreError(
            f"--out: got {out}, but Parquet is written by pyarrow, which is not installed; "
            "pip install 'entrostat[parquet]', or choose a name that ends in .jsonl"
        )


def refuse_numbers(temperature: float, batch_tokens: int) -> None:
    """Raise ScoreError for a number that is out of its range."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ScoreError(f"temperature is {temperature}; allowed: a finite number > 0. Give the sampler's")
    if batch_tokens < 1:
        raise ScoreError(f"batch_tokens is {batch_tokens}; allowed: at least 1. Leave it at its default")


def _surveyed(source: Path, policy: Policy) -> tuple[int, Rewards]:
    """How many completions there are, and the mean reward of each prompt, after a look at every field."""
    total = 0

    def counted() -> Iterator[Completion]:
        nonlocal total
        for each in read_completions(source, policy):
            total += 1
            yield each

    rewards = mean_rewards(counted())
    return total, rewards


def _settings(policy: Policy, source: Path, temperature: float, batch_tokens: int) -> dict[str, Any]:
    return {
        "model": policy.source,
        "weights": _identity(policy),
        "completions": hashlib.sha256(source.read_bytes()).hexdigest(),
        "temperature": temperature,
        "batch_tokens": batch_tokens,
        "dtype": str(policy.model.dtype).removeprefix("torch."),
        "device": policy.device.type,
    }


def _identity(policy: Policy) -> str | None:
    """What identifies a model beside its name: the digest of its folder, or the commit on the hub."""
    folder = Path(policy.source)
    if folder.is_dir():
        return folder_digest(folder)
    return getattr(policy.model.config, "_commit_hash", None)


def _write_parquet(lines: Path, out: Path) -> None:
    """The lines as a Parquet file, one row per completion, one list column per statistic."""
    import pyarrow
    import pyarrow.parquet

    whole, number = pyarrow.int64(), pyarrow.list_(pyarrow.float64())
    plain = {"record": whole, "sample": whole, "id": pyarrow.string(), "tokens": pyarrow.list_(whole)}
    names = dict.fromkeys(name for record in iterate_lines(lines) for name in record)
    schema = pyarrow.schema(
        [(name, plain.get(name, number)) for name in [*plain, *(n for n in names if n not in plain)]]
    )
    with atomic_path(out) as scratch, pyarrow.parquet.ParquetWriter(scratch, schema) as writer:
        records = iterate_lines(lines)
        while rows := list(islice(records, ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WITHIN = (0.5, 2.0)  # of w, outside which a token counts as far from the sampler


def summarise(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures over the tokens of all records of `score_completions`, each token counted equally; in nats unless stated.

        completions, tokens               counts
        entropy                           mean; entropy_quantiles: at 5, 25, 50, 75 and 95 %
        logp, collision, correction       means; perplexity = exp(-mean ln p)
        expanding, contracting            shares of the tokens with a polarity that is above and below 0
        kl_k1, kl_k3                      mean estimates of KL(sampler || model) per token
        log_ratio_largest                 largest |ln w|
        ratio_outside                     share of tokens with w outside [.5, 2]
        effective_sample_size             (sum W)^2 / sum W^2 over `sampled` completions, W = product of w
        sampler_entropy_low, _high        means of the bounds
        infinite                          tokens with an infinite value, which the means of that value leave out

    A figure for which no record has the data is left out.
    """
    columns: dict[str, list[NDArray[np.float64]]] = {}
    log_weights: list[float] = []
    completions = tokens = infinite = 0
    for record in records:
        completions, tokens = completions + 1, tokens + len(record["tokens"])
        for name, values in record.items():
            if isinstance(values, list) and name != "tokens":
                columns.setdefault(name, []).append(np.array(values, dtype=np.float64))
        infinite += sum(value is None for value in record["logp"])
        if "kl_k1" in record:
            log_weights.append(-sum(np.inf if value is None else value for value in record["kl_k1"]))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    known = {name: values[np.isfinite(values)] for name, values in joined.items()}
    found: dict[str, Any] = {"completions": completions, "tokens": tokens, "infinite": infinite}
    found |= {name: float(known[name].mean()) for name in MEANS if name in known and len(known[name])}
    if "entropy" in found:
        found["entropy_quantiles"] = dict(
            zip(map(str, QUANTILES), np.quantile(known["entropy"], QUANTILES).tolist(), strict=True)
        )
    if "logp" in found:
        found["perplexity"] = float(np.exp(-found["logp"]))
    if len(polarity := known.get("polarity", np.empty(0))):
        found |= {"expanding": float((polarity > 0).mean()), "contracting": float((polarity < 0).mean())}
    if len(ratios := known.get("kl_k1", np.empty(0))):
        low, high = np.log(WITHIN)
        found["log_ratio_largest"] = float(np.abs(ratios).max())
        found["ratio_outside"] = float(((-ratios < low) | (-ratios > high)).mean())
        found["effective_sample_size"] = effective_sample_size(torch.tensor(log_weights, dtype=torch.float64))
        found["sampled"] = len(log_weights)
    return found


MEANS = (
    "entropy",
    "logp",
    "collision",
    "correction",
    "kl_k1",
    "kl_k3",
    "sampler_entropy_low",
    "sampler_entropy_high",
)
