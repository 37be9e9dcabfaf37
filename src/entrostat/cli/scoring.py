"""`score`: exact token statistics of completions that any engine wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from entrostat.cli.progress import progress, working
from entrostat.cli.screen import AsJson, cell, console, refuse_missing, refuse_missing_model, visible


def score(
    model: Annotated[str, typer.Argument(help="A model folder, a hub id, RUN@peak, or `embedded`.")],
    file: Annotated[Path, typer.Argument(help="Completions: JSON lines of vLLM, SGLang, OpenAI's API or your own.")],
    out: Annotated[Path, typer.Option(help="Where the scores go: a .jsonl or .parquet file.")] = Path("scores.jsonl"),
    temperature: Annotated[
        float, typer.Option(help="That of the sampler's log-probabilities, above 0; vLLM's are at 1.", min=1e-3)
    ] = 1.0,
    batch_tokens: Annotated[int, typer.Option(help="Tokens read at a time, padding included.", min=1)] = 4096,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Measure every token of completions that any engine wrote; the same command again resumes where it stopped.

    One forward pass: log-probability, entropy, sum p^2, C, sensitivity; polarity where the file has an advantage or a
    reward; the divergence from the sampler and bounds of its entropy where it has log-probabilities.

    Example: entrostat score Qwen/Qwen2.5-0.5B completions.jsonl --out scores.jsonl
    """
    refuse_missing(file, "give the path of a file of completions")
    refuse_missing_model(model)
    from entrostat.engine.policy import load_policy
    from entrostat.engine.scoring import refuse_numbers, refuse_output, score_file

    refuse_output(file, out)
    refuse_numbers(temperature, batch_tokens)
    with working(f"loading {model}"):
        policy = load_policy(model, dtype, device)
    with progress("scoring") as tell:
        found = score_file(policy, file, out, temperature=temperature, batch_tokens=batch_tokens, progress=tell)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    for _ in range(2):
        table.add_column(justify="left")
    for name, value in _rows(found):
        table.add_row(name, value)
    console.print(table)
    console.print(visible(f"scores: {out}"), style="bold", markup=False, soft_wrap=True)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the table: what is measured, and the figure with its unit."""
    yield "completions, tokens", f"{found['completions']}, {found['tokens']}"
    for name, (text, unit) in LABELS.items():
        if name in found:
            yield text, f"{cell(found[name])} {unit}".rstrip()
        if name == "entropy" and "entropy_quantiles" in found:
            shares = " / ".join(f"{100 * float(share):.0f}" for share in found["entropy_quantiles"])
            yield f"entropy at {shares} %", " / ".join(cell(value) for value in found["entropy_quantiles"].values())
    if "sampled" in found:
        size = found["effective_sample_size"]
        yield "effective sample size", f"{size:.1f} of {found['sampled']} completions"
    if found["infinite"]:
        yield "tokens of probability 0", f"{found['infinite']}, left out of the means of ln p and KL"


LABELS = {
    "entropy": ("mean entropy", "nats per token"),
    "sampler_entropy_low": ("sampler's mean entropy, at least", "nats per token"),
    "sampler_entropy_high": ("sampler's mean entropy, at most", "nats per token"),
    "logp": ("mean ln p", "nats per token"),
    "perplexity": ("perplexity", ""),
    "collision": ("mean sum p^2", ""),
    "correction": ("mean C", "nats"),
    "expanding": ("share of tokens that raise entropy", ""),
    "contracting": ("share of tokens that lower it", ""),
    "kl_k1": ("KL to the model from the sampler, k1", "nats per token"),
    "kl_k3": ("KL to the model from the sampler, k3", "nats per token"),
    "log_ratio_largest": ("largest |ln w|", "nats"),
    "ratio_outside": ("share of tokens with w outside .5 to 2", ""),
}
