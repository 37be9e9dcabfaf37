"""An optimizer step of the project's own engine on the device: what control costs, and what packed rows bring.

    python benchmarks/gpu/step.py [--rehearse]

A model of Qwen2.5-0.5B's sizes with random weights, 64 completions of 256 tokens from 8 prompts of 128. Steps with and
without control take turns; the ratio is that of medians, with a bootstrap interval. Packed rows hand the model a mask
of their own, which PyTorch's fast attention kernels do not take; separate rows are the alternative.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import DEVICE, attempt, median_seconds, peak_megabytes, seconds_of
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from entrostat.engine.logits import pack, packed_logits, separate_logits
from entrostat.engine.policy import Policy, embedded_folder, load_policy
from entrostat.engine.rollout import Rollout
from entrostat.engine.update import Experience, Learner
from entrostat.recipe import build_controller, parse_recipe

CURVE = {"points": [[0, 0.5], [1, 0.5]]}
CONTROLS: dict[str, dict[str, Any]] = {
    "none": {"strategy": "constant"},
    "ID": {"strategy": "id"},
    "ID and weights by polarity": {"strategy": "id", "reweighting": "polarity-aware"},
    "target-weights": {"reweighting": {"name": "target-weights", "curve": CURVE}},
}
SIZES = {
    False: {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151_936},
    True: {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512},
}
HEADS = {"num_attention_heads": 14, "num_key_value_heads": 2}


def policy(rehearse: bool) -> Policy:
    """A policy with random weights of the sizes above."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2} if rehearse else HEADS
    config = Qwen2Config(**SIZES[rehearse], **heads, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0)
    with tempfile.TemporaryDirectory() as folder:
        Qwen2ForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(folder)
        return load_policy(Path(folder), device=DEVICE)


def completions(model: Policy, groups: int, samples: int, prompt: int, length: int) -> Rollout:
    """Random completions, as if the model had sampled them."""
    generator = torch.Generator().manual_seed(1)
    top = model.model.config.vocab_size
    rows = groups * samples
    prompts = torch.randint(2, top, (groups, prompt), generator=generator).repeat_interleave(samples, 0)
    tokens = torch.randint(2, top, (rows, length), generator=generator)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    batch = [t.to(DEVICE) for t in (prompts, torch.ones_like(prompts, dtype=torch.bool), tokens, mask)]
    with torch.no_grad():
        logp = torch.cat(
            [
                separate_logits(model.model, *(t[cut] for t in batch)).float().log_softmax(-1)
                .gather(2, batch[2][cut].unsqueeze(2)).squeeze(2)
                for cut in torch.arange(rows).split(4)
            ]
        )  # fmt: skip
    zeros = torch.zeros_like(logp)
    return Rollout(*batch, logp, zeros, torch.zeros(rows, dtype=torch.bool, device=DEVICE), ("",) * rows)


def control_cost(rehearse: bool, steps: int, shape: tuple[int, int, int, int]) -> None:
    """Seconds and peak memory per step under each control, in turns, and the ratio to the step without control."""
    model = policy(rehearse)
    rollout = completions(model, *shape)
    batch = Experience(
        rollout, torch.randn(len(rollout.completions), generator=torch.Generator().manual_seed(2)).to(DEVICE)
    )
    learners = {}
    for name, control in CONTROLS.items():
        update = {"learning_rate": 1e-9, "microbatch_rows": 4 if not rehearse else 2, "epochs": 8}
        recipe = parse_recipe({"name": "gpu", "update": update, "control": control})
        learners[name] = Learner(model, recipe, build_controller(recipe))
    number = 1
    peaks = {name: peak_megabytes(lambda learner=learner: learner.step(1, batch)) for name, learner in learners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(steps):
        number += 1
        for name, learner in learners.items():
            seconds[name].append(seconds_of(lambda learner=learner, number=number: learner.step(number, batch)))
    plain = np.array(seconds["none"])
    draws = np.random.default_rng(0).integers(0, steps, (2000, steps))
    for name, found in seconds.items():
        ratios = np.median(np.array(found)[draws], 1) / np.median(plain[draws], 1)
        attempt(
            {"case": "engine step", "control": name, "shape": list(shape), "steps": steps},
            lambda name=name, found=found, ratios=ratios: {
                "median_s": statistics.median(found),
                "peak_MB": peaks[name],
                "ratio": statistics.median(found) / float(np.median(plain)),
                "ratio_95": [float(x) for x in np.percentile(ratios, [2.5, 97.5])],
            },
        )


def packing(rehearse: bool, repeats: int, shape: tuple[int, int, int, int]) -> None:
    """Seconds and peak memory of a forward pass over packed rows and over separate ones."""
    model = policy(rehearse)
    rollout = completions(model, *shape)
    batch = (rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
    for dtype in (torch.float32, torch.bfloat16):
        model.model.to(dtype)
        ways = {
            "packed rows": lambda dtype=dtype: packed_logits(model.model, pack(*batch, dtype)),
            "separate rows": lambda: separate_logits(model.model, *batch),
        }
        for name, forward in ways.items():

            def measure(forward: Any = forward) -> dict[str, Any]:
                with torch.no_grad():
                    return {"median_s": median_seconds(forward, repeats), "peak_MB": peak_megabytes(forward)}

            attempt({"case": name, "dtype": str(dtype).removeprefix("torch."), "shape": list(shape)}, measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    rehearse = parser.parse_args().rehearse
    control_cost(rehearse, 2 if rehearse else 20, (2, 2, 5, 6) if rehearse else (8, 8, 128, 256))
    packing(rehearse, 1 if rehearse else 10, (1, 2, 5, 6) if rehearse else (1, 8, 128, 64))


if __name__ == "__main__":
    main()
