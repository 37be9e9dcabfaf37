"""Sampling: its probabilities are the policy's, and its randomness depends on nothing but the seed."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Lfm2Config, MambaConfig, MistralConfig

from entrostat.engine.policy import Policy, PolicyError, load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

PROMPTS = [task.prompt for task in listcraft.tasks("train", 6)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_log_probabilities_kept_are_those_of_a_full_forward_pass(policy, temperature):
    rollout = sample(policy, PROMPTS, Sampling(4, 48, temperature=temperature), seed=3)
    with torch.no_grad():
        logits = policy.logits(rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
    stats = token_stats(logits, rollout.completions, temperature=temperature)
    mask = rollout.mask
    assert torch.allclose(stats.logp[mask], rollout.old_logp[mask], atol=2e-4)
    assert torch.allclose(stats.entropy[mask], rollout.entropy[mask], atol=2e-4)


def test_padding_and_neighbours_in_the_batch_change_nothing(policy):
    together = sample(policy, PROMPTS, Sampling(1, 48), seed=5)
    for i in range(len(PROMPTS)):
        row = together.rows(torch.tensor([i]))
        own_width = int(row.prompt_mask.sum())
        prompt = row.prompts[:, -own_width:]
        with torch.no_grad():
            logits = policy.logits(prompt, torch.ones_like(prompt, dtype=torch.bool), row.completions, row.mask)
        alone = token_stats(logits, row.completions)
        assert torch.allclose(alone.logp, row.old_logp, atol=2e-4)


def test_same_seed_same_completions_whatever_the_batch_rows(policy):
    whole = sample(policy, PROMPTS, Sampling(4, 48), seed=7)
    pieces = sample(policy, PROMPTS, Sampling(4, 48, batch_rows=5), seed=7)
    assert whole.texts == pieces.texts
    assert torch.equal(whole.mask, pieces.mask)
    assert torch.allclose(whole.old_logp, pieces.old_logp, atol=2e-4)
    assert sample(policy, PROMPTS, Sampling(4, 48), seed=8).texts != whole.texts


def test_samples_follow_the_distribution_of_the_first_token(policy):
    n = 4000
    rollout = sample(policy, PROMPTS[:1], Sampling(n, 2, batch_rows=n), seed=11)
    second = rollout.completions[:, 1]
    with torch.no_grad():
        logits = policy.logits(rollout.prompts[:1], rollout.prompt_mask[:1], rollout.completions[:1], rollout.mask[:1])
    p = logits[0, 1].softmax(-1)
    counts = torch.bincount(second, minlength=len(p)) / n
    error = (p * (1 - p) / n).sqrt()
    assert bool(((counts - p).abs() <= 5 * error + 1e-4).all())


def test_a_completion_cut_at_the_limit_is_marked_and_one_with_an_end_token_is_not(policy):
    short, long = sample(policy, PROMPTS, Sampling(2, 3), seed=1), sample(policy, PROMPTS, Sampling(2, 60), seed=1)
    assert bool(short.truncated.all())
    assert not bool(long.truncated.any())
    ends = long.completions.gather(1, long.lengths.unsqueeze(1) - 1).squeeze(1)
    assert set(ends.tolist()) <= set(policy.stop_ids)


def test_an_empty_list_of_prompts_is_refused(policy):
    with pytest.raises(ValueError, match="prompts: the list is empty"):
        sample(policy, [], Sampling(1, 4), seed=0)


SIZES = {"hidden_size": 32, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
HEADS = {"intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}


def untrained(policy, config):
    """A small model of another family with the same tokenizer, several end tokens, and distributions that differ."""
    config.vocab_size = len(policy.tokenizer)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.mul_(12)
    model.generation_config.eos_token_id = [1, 5, 9, 20]
    return Policy(model, policy.tokenizer, type(config).__name__)


@pytest.mark.parametrize(
    "config",
    [MistralConfig(**SIZES, **HEADS, sliding_window=8), Lfm2Config(**SIZES, **HEADS, full_attn_idxs=[1])],
    ids=["sliding-window", "convolution-and-attention"],
)
def test_other_families_and_several_end_tokens_keep_the_probabilities_of_a_full_forward_pass(policy, config):
    other = untrained(policy, config)
    rollout = sample(other, PROMPTS, Sampling(3, 40), seed=1)
    with torch.no_grad():
        logits = other.logits(rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
    stats = token_stats(logits, rollout.completions)
    assert torch.allclose(stats.logp[rollout.mask], rollout.old_logp[rollout.mask], atol=2e-4)
    ends = rollout.completions.gather(1, rollout.lengths.unsqueeze(1) - 1).squeeze(1)
    ended = torch.isin(ends, torch.tensor(other.stop_ids))
    assert torch.equal(ended, ~rollout.truncated)
    assert len(set(ends[ended].tolist())) > 1


def test_a_model_without_a_key_value_cache_and_one_without_finite_logits_are_refused(policy):
    with pytest.raises(PolicyError, match="has no key-value cache; choose a model with attention"):
        sample(untrained(policy, MambaConfig(**SIZES, num_hidden_layers=1)), PROMPTS, Sampling(1, 4), seed=0)
    broken = load_policy()
    broken.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(PolicyError, match="not finite"):
        sample(broken, PROMPTS, Sampling(1, 4), seed=0)


def test_a_completion_that_could_outrun_the_models_positions_is_refused(policy):
    with pytest.raises(PolicyError, match=r"max_new_tokens: got 200 .* has 128 positions; lower it to \d+"):
        sample(policy, PROMPTS, Sampling(1, 200), seed=0)
    with pytest.raises(PolicyError, match=r"has 128 positions; give shorter prompts"):
        sample(policy, [PROMPTS[0] * 100], Sampling(1, 1), seed=0)


def test_a_model_that_takes_no_ready_mask_samples_the_same(policy):
    ready, plain = (sample(replace(policy, packs=packs), PROMPTS, Sampling(8, 24), seed=3) for packs in (True, False))
    assert policy.packs
    assert ready.texts == plain.texts
    torch.testing.assert_close(ready.old_logp, plain.old_logp)


def test_temperature_0_takes_the_likeliest_token_whatever_the_seed():
    policy = load_policy()
    greedy = [sample(policy, ["def solve(x):"], Sampling(1, 8, temperature=0.0), seed) for seed in (1, 2)]
    cold = sample(policy, ["def solve(x):"], Sampling(1, 8, temperature=1e-4), 3)
    assert greedy[0].texts == greedy[1].texts == cold.texts
    assert torch.equal(greedy[0].old_logp, greedy[1].old_logp)
    assert bool((greedy[0].old_logp < 0).any())
