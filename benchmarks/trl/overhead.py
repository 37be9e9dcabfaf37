"""What the controller costs a TRL step: plain GRPOTrainer and EntropyGRPOTrainer side by side on the same tensors.

    python benchmarks/trl/overhead.py --steps 10

A step is loss, backward pass and AdamW on given completions, so it holds no generation, which is the same in both and
would only make the difference smaller. The model has the sizes of SmolLM2-135M and random weights; ID, weights by
polarity and all metrics are on. Steps alternate; the interval is a 95 % bootstrap interval of the ratio of medians.
--clock cpu counts the process's CPU seconds, for a machine that others load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

from entrostat.control import EntropyController, IncreaseThenDecrease, PolarityAware
from entrostat.engine.policy import embedded_folder
from entrostat.integrations.trl_trainer import EntropyGRPOTrainer

SIZES = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}


def build(kind, rows, dtype, **options):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, pad_token_id=0, bos_token_id=None, eos_token_id=1))
    settings = {"num_generations": rows, "num_iterations": 2, "max_steps": 1000, "report_to": [], "use_cpu": True}
    args = GRPOConfig(
        tempfile.mkdtemp(), per_device_train_batch_size=rows, bf16=dtype == "bf16", loss_type="bnpo", **settings
    )
    prompts = Dataset.from_dict({"prompt": ["a"] * rows})
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    made = kind(model, lambda completions, **_: [0.0] * len(completions), args, prompts, None, tokenizer, **options)
    made.current_gradient_accumulation_steps = 1
    made.create_optimizer()
    return made


def inputs(rows, prompt, length):
    generator = torch.Generator().manual_seed(1)
    return {
        "prompt_ids": torch.randint(2, SIZES["vocab_size"], (rows, prompt), generator=generator),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
        "completion_ids": torch.randint(2, SIZES["vocab_size"], (rows, length), generator=generator),
        "completion_mask": torch.ones(rows, length, dtype=torch.long),
        "advantages": torch.randn(rows, generator=generator),
        "num_items_in_batch": torch.tensor(rows * length),
    }


def step(trainer, batch, clock):
    started = clock()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    trainer.state.global_step += 1
    return clock() - started


def ratio_interval(ours, plain):
    generator = np.random.default_rng(0)
    draws = [
        np.median(generator.choice(ours, len(ours))) / np.median(generator.choice(plain, len(plain)))
        for _ in range(2000)
    ]
    return [float(x) for x in np.percentile(draws, [2.5, 97.5])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    controller = EntropyController(IncreaseThenDecrease(), 1000, reweighting=PolarityAware())
    trainers = {
        "plain": build(GRPOTrainer, args.rows, args.dtype),
        "ours": build(EntropyGRPOTrainer, args.rows, args.dtype, controller=controller),
    }
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    batch = inputs(args.rows, args.prompt, args.length)
    for trainer in trainers.values():
        trainer.model.train()
        step(trainer, batch, clock)
    seconds = {name: [] for name in trainers}
    for _ in range(args.steps):
        for name, trainer in trainers.items():
            seconds[name].append(step(trainer, batch, clock))
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["plain"])
    print(
        json.dumps(
            {
                **vars(args),
                "plain_median_s": round(statistics.median(seconds["plain"]), 3),
                "ours_median_s": round(statistics.median(seconds["ours"]), 3),
                "ratio": round(ratio, 3),
                "ratio_95": [round(x, 3) for x in ratio_interval(seconds["ours"], seconds["plain"])],
            }
        )
    )


if __name__ == "__main__":
    main()
