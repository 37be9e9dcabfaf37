"""Completions in one row: the logits and gradients of rows apart, given to the families that read such rows right."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from entrostat.engine import logits as module
from entrostat.engine.logits import pack, packed_logits, reads_packed_rows, separate_logits
from entrostat.engine.policy import load_policy

VOCAB = 50
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
HEADS = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}


def untrained(config, dtype=torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def batch(prompt_lengths, lengths, samples, alphabet=VOCAB, seed=0):
    """Left-padded prompts, each repeated `samples` times, and right-padded completions of the lengths, in turn.

    alphabet: the number of tokens that are drawn; of a small one, many sequences begin alike.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = [
        (p, prompt) for p in prompt_lengths for prompt in [torch.randint(0, alphabet, (p,), generator=draw)] * samples
    ]
    width, height = max(prompt_lengths), max(lengths)
    prompts = torch.stack([torch.nn.functional.pad(prompt, (width - p, 0)) for p, prompt in rows])
    prompt_mask = torch.stack([torch.arange(width) >= width - p for p, _ in rows])
    ends = torch.tensor([lengths[i % len(lengths)] for i in range(len(rows))])
    mask = torch.arange(height) < ends.unsqueeze(1)
    completions = torch.randint(0, alphabet, mask.shape, generator=draw).where(mask, 0)
    return prompts, prompt_mask, completions, mask


@pytest.fixture(scope="module")
def llama():
    return untrained(LlamaConfig(**SIZES, **HEADS), torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from([1, 16, 30, 256]),
    st.sampled_from([1, 2, VOCAB]),
)
def test_packed_logits_and_gradients_are_those_of_rows_apart(
    llama, prompt_lengths, lengths, samples, row_tokens, alphabet
):
    tensors = batch(prompt_lengths, lengths, samples, alphabet)
    mask = tensors[-1]
    found = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "ROW_TOKENS", row_tokens)
        packing = pack(*tensors, torch.float64)
    for logits in (packed_logits(llama, packing), separate_logits(llama, *tensors)):
        llama.zero_grad()
        logits[mask].log_softmax(-1)[:, 0].sum().backward()
        found.append((logits[mask], [weight.grad.clone() for weight in llama.parameters()]))
    (packed, packed_gradients), (apart, gradients) = found  # the norms of this family compute in float32
    assert torch.allclose(packed, apart, rtol=0, atol=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(packed_gradients, gradients, strict=True))


def test_what_sequences_begin_with_alike_is_read_once():
    prompts = torch.tensor([[0, 7, 8], [0, 7, 8], [0, 7, 8], [7, 9, 5]])
    prompt_mask = torch.tensor([[False, True, True]] * 3 + [[True] * 3])
    completions = torch.tensor([[1, 2, 3, 4], [1, 2, 5, 0], [1, 2, 3, 4], [2, 2, 0, 0]])
    packing = pack(prompts, prompt_mask, completions, completions > 0, torch.float32)
    assert packing.tokens.tolist() == [[7, 8, 1, 2, 3, 9, 5, 2]]
    assert packing.positions.tolist() == [[0, 1, 2, 3, 4, 1, 2, 3]]
    assert packing.before.tolist() == [[1, 2, 3, 4], [1, 2, 3, 1], [1, 2, 3, 4], [6, 7, 6, 6]]
    reads = [[j for j in range(8) if packing.attention[0, 0, i, j] == 0] for i in range(8)]
    assert reads == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 5], [0, 5, 6], [0, 5, 6, 7]]


@pytest.mark.parametrize(
    ("config", "packs"),
    [
        (Qwen2Config(**SIZES, intermediate_size=48, num_key_value_heads=2), True),
        (Qwen3Config(**SIZES, **HEADS), True),
        (GPT2Config(bos_token_id=0, eos_token_id=1, vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4), True),
        (GPTNeoXConfig(**SIZES, intermediate_size=48), True),
        (Gemma3TextConfig(**SIZES, **HEADS), False),
        (MistralConfig(**SIZES, **HEADS, sliding_window=8), False),
        (BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4), False),
        (Lfm2Config(**SIZES, intermediate_size=48, num_key_value_heads=2, full_attn_idxs=[1]), False),
        (MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1), False),
    ],
    ids=lambda value: type(value).__name__.removesuffix("Config") if not isinstance(value, bool) else str(value),
)
def test_only_the_families_that_read_packed_rows_right_are_given_them(config, packs):
    assert reads_packed_rows(untrained(config)) is packs


def test_the_embedded_policy_packs_and_its_logits_stay_the_same():
    policy = load_policy()
    tensors = batch([6, 3], [7, 2, 5], samples=3)
    mask = tensors[-1]
    assert policy.packs
    with torch.no_grad():
        packed, apart = policy.logits(*tensors), replace(policy, packs=False).logits(*tensors)
    assert torch.allclose(packed[mask], apart[mask], atol=5e-5)


def test_rows_too_long_for_a_mask_of_their_square_stay_apart(monkeypatch):
    policy = load_policy()
    monkeypatch.setattr("entrostat.engine.policy.LONGEST", 8)
    monkeypatch.setattr("entrostat.engine.policy.pack", None)
    assert policy.logits(*batch([6], [7], samples=2)).shape == (2, 7, policy.model.config.vocab_size)
