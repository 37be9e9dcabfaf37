"""Make the embedded default policy: tokenizer, architecture and weights of src/entrostat/assets/listcraft.

    python scripts/pretrain.py            # about ten minutes on two cores; same machine, same seed: same weights

A policy for reinforcement learning should know the language and be unsure of the answer. So it is trained on programs
of the train split in which each operation stands, with probability NOISE, replaced by another of the same kind. What it
learns is to write correct Python that often does a neighbouring thing.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import string
import time
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from entrostat.tasks import listcraft

NOISE = 0.4
POOL = 30_000
BATCH = 128
PEAK_RATE = 3e-3
WARM_UP = 50

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CODE_PIECES = (
    "def solve(xs):\n", "    xs = ", "    return ", " for x in xs", " if ", "list(", "map(", "filter(", "lambda x: ",
    ", xs)", "reversed(", "sorted(", "dict.fromkeys(", "sum(", "max(", "min(", "len(", "abs(", ", default=0",
    ", reverse=True", "xs", "::", " + ", " - ", " * ", " % ", " == ", " > ", " < ", ", then",
)  # fmt: skip


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words and frequent pieces of code; every other printable ASCII character is a token of its own."""
    words = {f" {word}" for op in listcraft.OPERATIONS for text in op.words for word in text.split() if len(word) > 1}
    pieces = sorted(words | set(CODE_PIECES), key=lambda piece: (-len(piece), piece))
    characters = [*sorted(set(string.printable) - set(string.whitespace)), " ", "\n", "\t"]
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *pieces, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    pattern = Regex("|".join(re.escape(piece) for piece in pieces) + r"|[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, model_max_length=128
    )


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """Four Llama layers of width 128: 0.8 million parameters."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=336,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def blurred(program: listcraft.Program, rng: random.Random) -> listcraft.Program:
    """The program with each operation replaced, with probability NOISE, by another of its kind."""
    operations = []
    for op in program.operations:
        single = listcraft.Program((op,))
        operations.append((single.neighbour(rng) if rng.random() < NOISE else single).operations[0])
    return listcraft.Program(tuple(operations))


def batches(tokenizer: PreTrainedTokenizerFast, seed: int):
    """(token ids, labels) of shape (BATCH, T), without end; prompts and padding carry the label -100."""
    rng = random.Random(f"pretrain {seed}")
    pool = [program for program, _ in zip(listcraft.programs("train", seed), range(POOL), strict=False)]
    while True:
        rows = []
        for _ in range(BATCH):
            program = rng.choice(pool)
            prompt = tokenizer.encode(program.prompt(rng))
            solution = [*tokenizer.encode(blurred(program, rng).solution(rng)), tokenizer.eos_token_id]
            rows.append((prompt, solution))
        width = max(len(prompt) + len(solution) for prompt, solution in rows)
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((BATCH, width), -100)
        for i, (prompt, solution) in enumerate(rows):
            ids[i, : len(prompt) + len(solution)] = torch.tensor(prompt + solution)
            labels[i, len(prompt) : len(prompt) + len(solution)] = torch.tensor(solution)
        yield ids, labels


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return PEAK_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/entrostat/assets/listcraft")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    started = time.perf_counter()
    for step, (ids, labels) in zip(range(args.steps), batches(tokenizer, args.seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps)
        logits = model(input_ids=ids).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == args.steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.perf_counter() - started:6.0f} s", flush=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
