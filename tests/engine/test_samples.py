"""The per-token record: pieces that join to the text, and numbers of the policy that sampled."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from entrostat.engine.evaluate import text_pieces, token_records
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.train import train
from entrostat.entropy import sensitivity
from entrostat.recipe import parse_recipe
from entrostat.runs import Run
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats


def byte_level():
    """A tokenizer whose tokens are single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback():
    """A tokenizer of words that begin with a space, which is dropped at the start, and of bytes for all else."""
    words = ["▁the", "▁list", "▁", "x", "s"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    replace, fuse, strip = decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replace, decoders.ByteFallback(), fuse, strip])
    return tokenizer


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([byte_level(), byte_fallback()]), st.lists(st.integers(0, 255), max_size=30))
def test_pieces_join_to_the_text_whatever_the_tokens(tokenizer, ids):
    text = tokenizer.decode(ids)
    pieces = text_pieces(tokenizer.decode, ids, text)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_character_of_several_tokens_stands_at_its_last_one_and_words_keep_their_spaces():
    tokenizer = byte_level()
    ids = tokenizer.encode("aé€b").ids
    assert text_pieces(tokenizer.decode, ids, "aé€b") == ["a", "", "é", "", "", "€", "b"]
    tokenizer = byte_fallback()
    assert text_pieces(tokenizer.decode, [0, 1, 1, 4], "the list lists") == ["the", " list", " list", "s"]


def test_a_character_that_is_cut_off_still_shows():
    tokenizer = byte_level()
    ids = tokenizer.encode("a€").ids[:-1]
    pieces = text_pieces(tokenizer.decode, ids, tokenizer.decode(ids))
    assert "".join(pieces) == "a\ufffd"
    assert pieces[0] == "a"


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_numbers_are_those_of_the_distribution_that_was_sampled(temperature):
    policy = load_policy()
    rollout = sample(policy, [task.prompt for task in listcraft.tasks("train", 4)], Sampling(2, 48, temperature), 3)
    with torch.no_grad():
        logits = policy.logits(rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
    stats = token_stats(logits, rollout.completions, temperature)
    rows = [6, 0, 3]
    for row, record in zip(rows, token_records(policy, rollout, rows, temperature), strict=True):
        length = int(rollout.lengths[row])
        assert {len(column) for column in record.values()} == {length}
        assert "".join(record["text"]) == rollout.texts[row]
        for field, expected in (
            ("logp", rollout.old_logp),
            ("entropy", rollout.entropy),
            ("sensitivity", sensitivity(stats)),
        ):
            assert record[field] == pytest.approx(expected[row, :length].tolist(), rel=1e-3, abs=2e-4)


def test_every_training_sample_of_a_run_carries_its_tokens_and_its_completions_advantage(tmp_path):
    recipe = parse_recipe(
        {
            "name": "tokens",
            "tasks": {"train": 6, "select": 2, "report": 2},
            "rollout": {"prompts": 6, "samples": 2},
            "evaluation": {"samples": 1, "pass_at": [1], "every": 4},
            "update": {"advantage": "reinforce", "failure_reward": -1},
            "campaign": {"steps": 4},
        }
    )
    train(recipe, tmp_path / "run")
    samples = Run.open(tmp_path / "run").samples()
    trained = [line for line in samples if line["split"] == "train"]
    assert [line["step"] for line in trained] == [0] * 4 + [2] * 4
    for line in trained:
        assert line["advantage"] == (1 if line["outcome"] == "passed" else -1)
        assert "".join(line["tokens"]["text"]) == line["completion"]
        assert all(len(f"{abs(x):e}".split("e")[0].rstrip("0")) <= 5 for x in line["tokens"]["sensitivity"])
    assert not any("tokens" in line for line in samples if line["split"] != "train")
    assert len(json.dumps(trained[0])) < 8000
