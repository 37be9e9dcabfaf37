"""Scores of a file of completions in a file of their own, batch by batch, resumable; and a summary of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entrostat.engine.completions import Completion, read_completions
from entrostat.engine.generate import refuse_other_settings
from entrostat.engine.policy import Policy
from entrostat.engine.sampler_logprobs import ScoreError
from entrostat.engine.scoring import Rewards, batches, mean_rewards, score_completions
from entrostat.runs import RunError
from entrostat.runs.files import append_line, atomic_path, folder_digest, iterate_lines
from entrostat.tokens import effective_sample_size

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
        progress: is told (completions scored, completions in all).

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
    """What tells the model from another of its name: the digest of its folder, or the commit on the hub."""
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
    """Figures over the tokens of all records of `score_completions`, each token counted alike; nats unless said.

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
