"""Loading policies: the embedded one, any folder in Hugging Face format, and folders that lack something."""

import json
import os
import string

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel

from entrostat.engine.policy import PolicyError, embedded_folder, load_policy, sees_later_tokens


def test_the_embedded_policy_fits_its_budget_and_round_trips_any_ascii_text():
    policy = load_policy()
    weights = embedded_folder() / "model.safetensors"
    assert weights.stat().st_size <= 4 * 2**20
    text = "# keep the even numbers\ndef solve(xs):\n    return [x for x in xs if x % 2 == 0] " + string.printable[:95]
    assert policy.decode(policy.tokenizer.encode(text)) == text


def test_a_saved_policy_loads_with_the_same_weights(tmp_path):
    policy = load_policy()
    policy.save(tmp_path / "copy")
    again = load_policy(tmp_path / "copy")
    assert again.stop_ids == policy.stop_ids
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("missing", "message"),
    [("tokenizer", "holds no tokenizer; save the model's tokenizer"), ("config.json", "holds no config.json")],
)
def test_a_folder_that_lacks_a_part_is_refused_by_name(tmp_path, missing, message):
    load_policy().save(tmp_path)
    for path in tmp_path.glob(f"{missing}*"):
        path.unlink()
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_and_a_device_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="does not exist; give a model folder"):
        load_policy(tmp_path / "nothing")
    if not torch.cuda.is_available():
        with pytest.raises(PolicyError, match="torch sees no CUDA device"):
            load_policy(device="cuda")


def test_damaged_weights_are_refused(tmp_path):
    load_policy().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(PolicyError, match="no causal model can be read"):
        load_policy(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded policy, to be damaged."""
    load_policy().save(tmp_path / "model")
    return tmp_path / "model"


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder, file="config.json", **values):
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def refused(folder, message):
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


INNER = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(INNER), f"1 tensors of .* are missing, and would be random .{INNER}"),
        (lambda t: [t.pop(name) for name in list(t) if "layers.1" in name], r"are missing, .*, \.\.\.\)"),
        (lambda t: t.pop("model.embed_tokens.weight"), "are missing"),
        (lambda t: t.update(score=torch.zeros(2)), "belong to no part of the model .score"),
        (lambda t: t.update({INNER: t[INNER][:-1].clone()}), f"another shape than config.json says .{INNER}"),
        (lambda t: t.update({INNER: t[INNER].T.contiguous()}), "another shape"),
        (lambda t: t[INNER].view(-1)[3:4].fill_(float("nan")), f"1 tensors of .* hold NaN or infinity .{INNER}"),
        (lambda t: t[INNER].view(-1)[3:4].fill_(float("inf")), "hold NaN or infinity"),
        (lambda t: t.clear(), "are missing"),
    ],
)
def test_tensors_that_are_not_the_model_s_are_refused_by_name(folder, change, message):
    change_tensors(folder, change)
    refused(folder, message)


def test_tied_embeddings_may_be_stored_once_and_untied_ones_may_not(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load_policy(folder)
    configure(folder, tie_word_embeddings=False)
    refused(folder, "are missing, and would be random .lm_head.weight")


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    (folder / "modeling_x.py").write_text("raise SystemExit('run')")
    configure(folder, model_type="x", auto_map={"AutoConfig": "modeling_x.C", "AutoModelForCausalLM": "modeling_x.M"})
    refused(folder, "code of its own, which is not run")


def test_a_tokenizer_with_code_of_its_own_is_not_run(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    (folder / "tokenization_x.py").write_text("raise SystemExit('run')")
    auto_map = {"AutoTokenizer": ["tokenization_x.T", None]}
    configure(folder, "tokenizer_config.json", tokenizer_class="T", auto_map=auto_map)
    refused(folder, "code of its own, which is not run")


@pytest.mark.parametrize("special", [False, True])
def test_a_tokenizer_larger_than_the_embedding_is_refused(folder, special):
    tokenizer = load_policy().tokenizer
    tokenizer.add_tokens([f"<new-{i}>" for i in range(5)], special_tokens=special)
    tokenizer.save_pretrained(folder)
    refused(folder, "5 tokens beyond the model's embedding of 171")


def test_a_place_for_images_may_lie_beyond_the_embedding_but_not_in_a_prompt(folder):
    """As in Gemma 3's text models."""
    tokenizer = load_policy().tokenizer
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    configure(folder, "tokenizer_config.json", image_token="<image>", extra_special_tokens={"image_token": "<image>"})
    policy = load_policy(folder)
    with pytest.raises(PolicyError, match="token 171, beyond the model's embedding of 171"):
        policy.encode("describe <image>")
    with pytest.raises(PolicyError, match="no tokens"):
        policy.encode("")


@pytest.mark.parametrize("end", [171, -1, "1", 1.5])
def test_an_end_token_that_the_embedding_does_not_have_is_refused(folder, end):
    configure(folder, "generation_config.json", eos_token_id=[1, end])
    refused(folder, f"ends at token {end!r}, which")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: (f / "config.json").write_text("{"), "no configuration can be read"),
        (lambda f: (f / "config.json").write_text("{}"), "no configuration can be read"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "no tokenizer can be read"),
        (lambda f: os.truncate(f / "model.safetensors", 100_000), "no causal model can be read"),
        (lambda f: os.truncate(f / "model.safetensors", 0), "no causal model can be read"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter"),
        (lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}), "quantised weights"),
        (lambda f: configure(f, model_type="t5", is_encoder_decoder=True), "is an encoder-decoder"),
        (lambda f: configure(f, model_type="clip"), "no causal model can be read|encoder"),
    ],
)
def test_a_folder_that_is_no_policy_is_refused_in_a_line(folder, damage, message):
    damage(folder)
    refused(folder, message)


def test_a_model_whose_tokens_see_later_ones_is_refused(folder):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertLMHeadModel(BertConfig(vocab_size=171, is_decoder=True, **sizes))
    (folder / "config.json").unlink()
    model.save_pretrained(folder)
    load_policy(folder)
    configure(folder, is_decoder=False)
    refused(folder, "lets tokens see later ones")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rounding_is_not_taken_for_a_view_of_later_tokens_at_any_scale_of_the_logits(folder, dtype, scale):
    model = load_policy(folder, dtype).model
    head, noise = model.get_output_embeddings(), 20 * torch.finfo(model.dtype).eps
    if dtype == "bfloat16":
        noise /= 10
    head.register_forward_hook(lambda _, __, logits: scale * (logits + noise * torch.randn_like(logits) * logits.std()))
    assert not sees_later_tokens(model, head.weight.shape[0])
    head.register_forward_hook(lambda _, __, logits: logits + 0.3 * logits.roll(-1, 1))
    assert sees_later_tokens(model, head.weight.shape[0])


def test_other_architectures_and_split_checkpoints_load(folder):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=171, n_embd=16, n_layer=1, n_head=2, n_positions=64, eos_token_id=1))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    loaded = load_policy(folder).model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    sorted(folder.glob("model-*.safetensors"))[1].unlink()
    refused(folder, "no causal model can be read")
