"""The head's statistics are those of the model's own logits, or the model is refused: nothing in between."""

import pytest
import torch
import transformers
from torch import nn

from entrostat.entropy import bonus_flow
from entrostat.integrations.trl.model_head import attach_statistics
from entrostat.tokens import TokenStats, token_stats

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
OLD = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}

SERVED = {
    "Llama": {},
    "Qwen3": {},
    "Mistral": {},
    "Gemma2": {"final_logit_softcapping": 0.5},
    "GPTNeoX": {},
    "GPTBigCode": OLD,
    "GPTJ": OLD,
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Olmo2": {},
    "Cohere": {"logit_scale": 1.0},
    "Granite": {"logits_scaling": 1.0},
}
REFUSED = {
    "Cohere": {"logit_scale": 0.0625},
    "Granite": {"logits_scaling": 8.0},
    "FalconH1": {"lm_head_multiplier": 0.5, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "Llama4": {"num_local_experts": 2, "intermediate_size_mlp": 48},
    "Roberta": {},
    "ModernBertDecoder": {},
}


def build(kind, changes, dtype=torch.float32):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}TextConfig" if kind == "Llama4" else f"{kind}Config")
    settings = {**SIZES, **HEADS, **TOKENS, "max_position_embeddings": 64, **changes}
    return getattr(transformers, f"{kind}ForCausalLM")(config(**settings)).to(dtype).eval()


def ids():
    return torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", SERVED)
def test_the_head_of_a_served_model_gives_the_statistics_of_its_logits(kind):
    model = build(kind, SERVED[kind])
    logits = model(input_ids=ids()).logits[:, 3:-1]
    expected = token_stats(logits, ids()[:, 4:])
    attach_statistics(model, 1.0)
    found = TokenStats(*model(input_ids=ids(), scored_ids=ids()[:, 4:]))
    for name in ("logp", "entropy", "collision", "correction"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6)
    *_, push = model(input_ids=ids(), scored_ids=ids()[:, 4:], entropy_grad=True)
    torch.testing.assert_close(push, bonus_flow(logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_whose_logits_are_something_else_is_refused_and_left_as_it_was(kind):
    model = build(kind, REFUSED[kind]).train()
    before = model.forward
    with pytest.raises(ValueError, match=r"statistics is 'head', but .*set statistics='logits'"):
        attach_statistics(model, 1.0)
    assert model.forward == before
    assert model.training


class Tampered(transformers.LlamaForCausalLM):
    """A model that does something to its logits which no configuration tells."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = self.change(out.logits)
        return out


@pytest.mark.parametrize(
    "change",
    [lambda x: 1.02 * x, lambda x: x + x.std(), lambda x: x.roll(1, -1), lambda x: x.tanh(), lambda x: x[..., :-1]],
    ids=["scaled", "shifted", "permuted", "capped", "cut"],
)
def test_no_name_is_needed_to_find_a_difference(change):
    model = build("Llama", {"initializer_range": 1.0})
    model.__class__, model.change = Tampered, change
    with pytest.raises(ValueError, match="set statistics='logits'"):
        attach_statistics(model, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rounding_is_no_difference(dtype):
    attach_statistics(build("Llama", {"initializer_range": 1.0}, dtype), 1.0)


def test_dropout_is_no_difference():
    attach_statistics(build("GPTBigCode", {**OLD, "resid_pdrop": 0.5}).train(), 1.0)


def test_weights_that_come_later_are_compared_at_the_first_scored_pass():
    with torch.device("meta"):
        model = build("Cohere", REFUSED["Cohere"])
    attach_statistics(model, 1.0)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.model.rotary_emb = build("Cohere", {}).model.rotary_emb
    with pytest.raises(ValueError, match="set statistics='logits'"):
        model(input_ids=ids(), scored_ids=ids()[:, 4:])


def test_a_head_that_is_no_plain_linear_layer_is_refused():
    model = build("Llama", {})
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(ValueError, match="is a Sequential, not a plain"):
        attach_statistics(model, 1.0)
