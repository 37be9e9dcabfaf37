"""`score`: the engine's own statistics whatever the batches, from every form of file, resumable to the byte."""

import json
import shutil
from functools import cache

import pytest
import torch
from typer.testing import CliRunner

import entrostat.engine.scoring as score_file_module
from entrostat import load_policy, score_file
from entrostat.cli import app
from entrostat.engine.completions import read_completions
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.sampler_logprobs import ScoreError
from entrostat.engine.scoring import score_completions, summarise
from entrostat.entropy import sensitivity
from entrostat.errors import EntrostatError
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

STATISTICS = ("logp", "entropy", "collision", "correction", "sensitivity")


@cache
def policy():
    return load_policy()


@cache
def rollout():
    prompts = [task.prompt for task in listcraft.tasks("train", 3)]
    return sample(policy(), prompts, Sampling(3, 24), seed=1)


@cache
def plain():
    """The rollout as records of token ids, with the sampler's log-probabilities."""
    drawn = rollout()
    return tuple(
        {
            "id": f"r{row}",
            "prompt_token_ids": drawn.prompts[row][drawn.prompt_mask[row]].tolist(),
            "token_ids": drawn.completions[row][drawn.mask[row]].tolist(),
            "logprobs": drawn.old_logp[row][drawn.mask[row]].tolist(),
            "reward": float(row % 2),
        }
        for row in range(len(drawn.completions))
    )


def written(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def scores(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_scores_are_the_engines_own_statistics(tmp_path):
    drawn, out = rollout(), tmp_path / "scores.jsonl"
    summary = score_file(policy(), written(tmp_path / "in.jsonl", plain()), out)
    logits = policy().logits(drawn.prompts, drawn.prompt_mask, drawn.completions, drawn.mask)
    stats = token_stats(logits.detach(), drawn.completions)
    found = scores(out)
    for row, record in enumerate(found):
        keep = drawn.mask[row]
        for name in STATISTICS:
            own = sensitivity(stats) if name == "sensitivity" else getattr(stats, name)
            torch.testing.assert_close(torch.tensor(record[name]), own[row][keep], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.tensor(record["entropy"]), drawn.entropy[row][keep], atol=1e-4, rtol=1e-4)
        mean = sum(r["reward"] for r in plain()[row // 3 * 3 : row // 3 * 3 + 3]) / 3
        expected = (plain()[row]["reward"] - mean) * torch.tensor(record["sensitivity"])
        torch.testing.assert_close(torch.tensor(record["polarity"]), expected, atol=1e-6, rtol=1e-5)
        assert max(map(abs, record["kl_k1"])) < 1e-4  # the sampler is this model
    assert [record["id"] for record in found] == [record["id"] for record in plain()]
    assert summary == summarise(found)
    assert summary["tokens"] == drawn.token_count
    assert summary["effective_sample_size"] == pytest.approx(9, abs=1e-3)
    torch.testing.assert_close(summary["entropy"], float(drawn.entropy[drawn.mask].mean()), atol=1e-4, rtol=0)


def test_neither_batches_nor_padding_nor_packing_change_a_score(tmp_path):
    from dataclasses import replace

    source = written(tmp_path / "in.jsonl", plain())
    whole = list(read_completions(source, policy()))
    together = score_completions(policy(), whole)
    means = {each.prompt: sum(e.reward for e in whole if e.prompt == each.prompt) / 3 for each in whole}
    apart = [score_completions(policy(), [each], rewards=means)[0] for each in whole]
    unpacked = score_completions(replace(policy(), packs=False), whole)
    for one, other in [*zip(together, apart, strict=True), *zip(together, unpacked, strict=True)]:
        assert one.keys() == other.keys()
        for name in (*STATISTICS, "polarity", "kl_k1", "kl_k3"):
            torch.testing.assert_close(torch.tensor(one[name]), torch.tensor(other[name]), atol=2e-5, rtol=1e-5)


def test_the_temperature_is_the_distributions(tmp_path):
    whole = list(read_completions(written(tmp_path / "in.jsonl", plain()), policy()))
    cold, warm = (sum(score_completions(policy(), whole, t)[0]["entropy"]) for t in (0.5, 1.0))
    assert cold < warm
    with pytest.raises(ScoreError, match="temperature is nan"):
        score_completions(policy(), whole, float("nan"))


@pytest.mark.parametrize("kept", [0, 17, -1])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, monkeypatch, kept):
    source = written(tmp_path / "in.jsonl", [*plain(), {**plain()[0], "token_ids": [], "logprobs": []}])
    expected = score_file(policy(), source, tmp_path / "whole.jsonl", batch_tokens=200)
    out, calls = tmp_path / "scores.jsonl", []
    append = score_file_module.append_line

    def dying(path, record):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(record)
        append(path, record)

    monkeypatch.setattr(score_file_module, "append_line", dying)
    with pytest.raises(KeyboardInterrupt):
        score_file(policy(), source, out, batch_tokens=200)
    monkeypatch.setattr(score_file_module, "append_line", append)
    out.write_bytes(out.read_bytes()[: kept or None])  # a torn line, too
    told = []
    assert score_file(policy(), source, out, batch_tokens=200, progress=lambda *at: told.append(at)) == expected
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert told[-1] == (10, 10)
    assert score_file(policy(), source, out, batch_tokens=200) == expected  # nothing is left to do


def test_scores_made_otherwise_are_left_alone(tmp_path):
    source, out = written(tmp_path / "in.jsonl", plain()[:1]), tmp_path / "scores.jsonl"
    score_file(policy(), source, out)
    before = out.read_bytes()
    with pytest.raises(EntrostatError, match=r"temperature 1\.0, not 2\.0"):
        score_file(policy(), source, out, temperature=2.0)
    written(source, plain()[:2])
    with pytest.raises(EntrostatError, match="with completions"):
        score_file(policy(), source, out)
    assert out.read_bytes() == before


# --- what engines write ---


def as_vllm():
    records = []
    for first in range(0, 9, 3):
        group = plain()[first : first + 3]
        outputs = [
            {
                "index": i,
                "text": "",
                "token_ids": each["token_ids"],
                "logprobs": [
                    {str(token): {"logprob": value, "rank": 1, "decoded_token": "x"}}
                    for token, value in zip(each["token_ids"], each["logprobs"], strict=True)
                ],
            }
            for i, each in enumerate(group)
        ]
        prompt = group[0]["prompt_token_ids"]
        rewards = [each["reward"] for each in group]
        records.append({"request_id": "7", "prompt_token_ids": prompt, "outputs": outputs, "reward": rewards})
    return records


def as_openai_chat():
    return [
        {
            "custom_id": each["id"],
            "prompt": each["prompt_token_ids"],
            "reward": each["reward"],
            "response": {
                "body": {
                    "choices": [
                        {
                            "message": {"role": "assistant", "content": "?"},
                            "logprobs": {
                                "content": [
                                    {"token": f"token_id:{token}", "logprob": value, "top_logprobs": []}
                                    for token, value in zip(each["token_ids"], each["logprobs"], strict=True)
                                ]
                            },
                        }
                    ]
                }
            },
        }
        for each in plain()
    ]


def as_openai_text():
    """Texts alone: the tokenizer cuts them, and the pieces tell that they are the same tokens, the end token too."""
    decode = policy().tokenizer.decode
    return [
        {
            "prompt_token_ids": each["prompt_token_ids"],
            "reward": [each["reward"]],
            "choices": [
                {
                    "text": policy().decode(each["token_ids"]),
                    "logprobs": {
                        "tokens": [decode([token]) for token in each["token_ids"]],
                        "token_logprobs": each["logprobs"],
                        "top_logprobs": None,
                    },
                }
            ],
        }
        for each in plain()
    ]


def as_sglang():
    return [
        {
            "input_ids": each["prompt_token_ids"],
            "text": "",
            "reward": each["reward"],
            "meta_info": {
                "output_token_logprobs": [
                    [value, token, None] for token, value in zip(each["token_ids"], each["logprobs"], strict=True)
                ]
            },
        }
        for each in plain()
    ]


@pytest.mark.parametrize("form", [as_vllm, as_openai_chat, as_openai_text, as_sglang])
def test_every_form_of_a_file_is_the_same_completions(tmp_path, form):
    expected = list(read_completions(written(tmp_path / "plain.jsonl", plain()), policy()))
    found = list(read_completions(written(tmp_path / "in.jsonl", form()), policy()))
    for one, other in zip(found, expected, strict=True):
        for field in ("prompt", "tokens", "sampler_logp", "reward"):
            assert getattr(one, field) == getattr(other, field), field


def test_the_bounds_from_a_top_k_hold_the_samplers_entropy(tmp_path):
    drawn = rollout()
    logits = policy().logits(drawn.prompts, drawn.prompt_mask, drawn.completions, drawn.mask).detach()
    top = logits.double().log_softmax(-1)
    for k in (1, 4):
        vllm, sglang, chat = [], [], []
        for row, each in enumerate(plain()):
            entries, tops = [], []
            for place, token in enumerate(each["token_ids"]):
                values, ids = top[row, place].topk(k)
                rank = 1 + int((top[row, place] > top[row, place, token]).sum())
                own = {str(token): {"logprob": float(top[row, place, token]), "rank": rank}}
                named = zip(ids.tolist(), values.tolist(), strict=True)
                entries.append(own | {str(i): {"logprob": v, "rank": n} for n, (i, v) in enumerate(named, 1)})
                tops.append([[value, i, None] for value, i in zip(values.tolist(), ids.tolist(), strict=True)])
            values = [float(top[row, place, token]) for place, token in enumerate(each["token_ids"])]
            common = {"prompt_token_ids": each["prompt_token_ids"], "token_ids": each["token_ids"]}
            vllm.append({**common, "logprobs": entries})
            triples = [[value, token, None] for value, token in zip(values, each["token_ids"], strict=True)]
            sglang.append({**common, "meta_info": {"output_token_logprobs": triples, "output_top_logprobs": tops}})
            content = [
                # with the sampled token first, whatever its rank, as some servers list it
                {"logprob": value, "top_logprobs": [{"logprob": value}, *({"logprob": t[0]} for t in own if t[1] != i)]}
                for value, own, i in zip(values, tops, each["token_ids"], strict=True)
            ]
            chat.append({**common, "logprobs": {"content": content}})
        for records in (vllm, sglang, chat):
            out = tmp_path / f"{k}.jsonl"
            out.unlink(missing_ok=True)
            score_file(policy(), written(tmp_path / "in.jsonl", records), out)
            bounded = 0
            for record in scores(out):
                lows, highs = record.get("sampler_entropy_low", []), record.get("sampler_entropy_high", [])
                for low, entropy, high in zip(lows, record["entropy"], highs, strict=False):
                    if low is not None:
                        bounded += 1
                        assert low - 1e-4 <= entropy <= high + 1e-4
            assert bounded > rollout().token_count / 2 or (k == 1 and records is chat)


# --- hostile files ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_token_ids": None}, "no prompt"),
        ({"prompt_token_ids": []}, "prompt_token_ids is empty"),
        ({"prompt_token_ids": "12"}, "prompt_token_ids is '12'"),
        ({"token_ids": [1.5]}, r"token_ids\[0\] is '1.5'"),
        ({"token_ids": [True]}, r"token_ids\[0\] is 'True'"),
        ({"token_ids": [171], "logprobs": None}, r"token_ids\[0\] is 171; allowed: 0 to 170"),
        ({"token_ids": [-1], "logprobs": None}, r"token_ids\[0\] is -1"),
        ({"token_ids": [5] * 200, "logprobs": None}, "allowed: 128"),
        ({"token_ids": None, "logprobs": None}, "no completion"),
        ({"token_ids": None, "logprobs": None, "text": 3}, "text is '3'"),
        ({"logprobs": [-1.0]}, "has 1 entries and the completion"),
        ({"logprobs": "x"}, "logprobs is 'x'"),
        ({"token_ids": [5], "logprobs": [0.5]}, r"logprobs\[0\] is 0.5; allowed: <= 0"),
        ({"token_ids": [5], "logprobs": [float("nan")]}, r"logprobs\[0\] is 'nan'"),
        ({"token_ids": [5], "logprobs": [float("-inf")]}, r"logprobs\[0\] is '-inf'"),
        ({"token_ids": [5], "logprobs": [None]}, r"logprobs\[0\] is 'None'"),
        ({"token_ids": [5], "logprobs": [{"6": {"logprob": -1}}]}, "lacks the sampled token 5"),
        ({"token_ids": [5], "logprobs": [{"5": {"logprob": -1, "rank": 0}}]}, "rank is '0'"),
        ({"token_ids": [5], "logprobs": [{"5": {"logprob": -0.1, "rank": 1}, "6": {"logprob": -0.1}}]}, "has mass"),
        (
            {"token_ids": None, "text": "a", "logprobs": {"tokens": ["zz"], "token_logprobs": [-1]}},
            "names other tokens",
        ),
        ({"reward": 10**400}, "reward is '1000"),
        ({"reward": [1.0, 2.0]}, "reward is '"),
        ({"advantage": [1.0] * 99}, "advantage has 99 entries"),
        ({"outputs": 3}, "outputs is '3'"),
        ({"outputs": [{"token_ids": [5]}], "reward": [1, 2]}, "reward has 2 entries and the record 1 completions"),
    ],
)
def test_a_faulty_record_is_refused_by_file_line_and_field_before_anything_is_written(tmp_path, change, message):
    source = written(tmp_path / "in.jsonl", [plain()[0], {**plain()[1], **change}])
    out = tmp_path / "scores.jsonl"
    with pytest.raises(EntrostatError, match=message) as error:
        score_file(policy(), source, out)
    assert f"{source}, line 2" in str(error.value)
    assert not out.exists()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_scores_and_a_summary(tmp_path):
    source, out = written(tmp_path / "in.jsonl", plain()), tmp_path / "scores.jsonl"
    result = run("score", "embedded", source, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["completions"] == len(scores(out)) == 9
    table = run("score", "embedded", source, "--out", out)
    assert "effective sample size" in table.output
    assert "entrostat score" in run("score", "--help").output.partition("Example:")[2]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"{", "scores.jsonl", "line 1"),
        (b"[1]", "scores.jsonl", "record 1"),
        (b"\xff\xfe\x00", "scores.jsonl", "cannot be read"),
        (None, "scores.jsonl", "no such file"),
        (b"", "scores.csv", "allowed: a name that ends in .jsonl or .parquet"),
        (b"", "in.jsonl", "where the completions are"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_plain_line(tmp_path, content, name, message):
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_bytes(content)
    result = run("score", "embedded", source, "--out", tmp_path / name)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (source.read_bytes() if source.exists() else None) == content


def test_an_empty_file_has_an_empty_summary(tmp_path):
    result = run("score", "embedded", written(tmp_path / "in.jsonl", []), "--out", tmp_path / "scores.jsonl", "--json")
    assert json.loads(result.stdout) == {"completions": 0, "tokens": 0, "infinite": 0}


def test_parquet_without_its_library_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(score_file_module, "find_spec", lambda name: None)
    result = run("score", "embedded", written(tmp_path / "in.jsonl", plain()), "--out", tmp_path / "scores.parquet")
    assert result.exit_code == 1
    assert "entrostat[parquet]" in result.stderr


def test_parquet_holds_the_lines(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    records = [*plain(), {k: v for k, v in plain()[0].items() if k not in ("reward", "logprobs")}]
    out = tmp_path / "scores.parquet"
    score_file(policy(), written(tmp_path / "in.jsonl", records), out)
    lines = scores(tmp_path / "scores.lines.jsonl")
    rows = parquet.read_table(out).to_pylist()
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == lines
    before = out.read_bytes()
    shutil.move(out, tmp_path / "old.parquet")
    score_file(policy(), tmp_path / "in.jsonl", out)
    assert out.read_bytes() == before
