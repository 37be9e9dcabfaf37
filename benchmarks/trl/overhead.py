"""What the controller costs a TRL step: plain GRPOTrainer and EntropyGRPOTrainer side by side on the same tensors.

    python benchmarks/trl/overhead.py --steps 10

A step is loss, backward pass and AdamW on given completions, so it holds no generation, which is the same in both and
would only make the difference smaller. The model has the sizes of SmolLM2-135M (or --model) and random weights; ID,
weights by polarity and all metrics are on. Steps alternate; the interval is a 95 % bootstrap interval of the ratio of
medians. --clock cpu counts the process's CPU seconds, for a machine that others load. Runs on a GPU where there is one,
and then prints the peak memory of a step too.
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
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer

SIZES = {
    "smollm2-135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    },
    "qwen2.5-0.5b": {
        "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    },
}  # fmt: skip
GPU = torch.cuda.is_available()


def build(kind, sizes, rows, dtype, **options):
    torch.manual_seed(0)
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **tokens, tie_word_embeddings=True))
    settings = {"num_generations": rows, "num_iterations": 2, "max_steps": 1000, "report_to": [], "use_cpu": not GPU}
    args = GRPOConfig(
        tempfile.mkdtemp(), per_device_train_batch_size=rows, bf16=dtype == "bf16", loss_type="bnpo", **settings
    )
    prompts = Dataset.from_dict({"prompt": ["a"] * rows})
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    made = kind(model, lambda completions, **_: [0.0] * len(completions), args, prompts, None, tokenizer, **options)
    made.current_gradient_accumulation_steps = 1
    made.create_optimizer()
    return made


def inputs(vocabulary, rows, prompt, length):
    generator = torch.Generator().manual_seed(1)
    batch = {
        "prompt_ids": torch.randint(2, vocabulary, (rows, prompt), generator=generator),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
        "completion_ids": torch.randint(2, vocabulary, (rows, length), generator=generator),
        "completion_mask": torch.ones(rows, length, dtype=torch.long),
        "advantages": torch.randn(rows, generator=generator),
        "num_items_in_batch": torch.tensor(rows * length),
    }
    return {name: tensor.cuda() if GPU else tensor for name, tensor in batch.items()}


def step(trainer, batch, clock):
    started = clock()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    trainer.state.global_step += 1
    if GPU:
        torch.cuda.synchronize()
    return clock() - started


def peak_megabytes(trainer, batch):
    """Peak memory of a step in MB above what is held before it; None without a GPU."""
    if not GPU:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(trainer, batch, time.perf_counter)
    return round((torch.cuda.max_memory_allocated() - before) / 1e6)


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
    parser.add_argument("--model", choices=list(SIZES), default="smollm2-135m")
    args = parser.parse_args()
    sizes = SIZES[args.model]
    torch.set_num_threads(args.threads)
    controller = EntropyController(IncreaseThenDecrease(), 1000, reweighting=PolarityAware())
    trainers = {
        "plain": build(GRPOTrainer, sizes, args.rows, args.dtype),
        "ours": build(EntropyGRPOTrainer, sizes, args.rows, args.dtype, controller=controller),
    }
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    batch = inputs(sizes["vocab_size"], args.rows, args.prompt, args.length)
    for trainer in trainers.values():
        trainer.model.train()
        step(trainer, batch, clock)
    peaks = {f"{name}_peak_MB": peak_megabytes(trainer, batch) for name, trainer in trainers.items()}
    seconds = {name: [] for name in trainers}
    for _ in range(args.steps):
        for name, trainer in trainers.items():
            seconds[name].append(step(trainer, batch, clock))
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["plain"])
    print(
        json.dumps(
            {
                **vars(args),
                **peaks,
                "plain_median_s": round(statistics.median(seconds["plain"]), 4),
                "ours_median_s": round(statistics.median(seconds["ours"]), 4),
                "ratio": round(ratio, 3),
                "ratio_95": [round(x, 3) for x in ratio_interval(seconds["ours"], seconds["plain"])],
            }
        )
    )


if __name__ == "__main__":
    main()
