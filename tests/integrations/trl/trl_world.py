"""A small world for TRL: a policy of one layer, prompts of the embedded tokenizer, and a reward of the text."""

import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

from entrostat.engine.policy import embedded_folder

PROMPTS = ["add [1, 2]", "sum of [3, 4]", "x = 1", "def"] * 8


def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_folder())


def policy(**changes):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=171, pad_token_id=0, bos_token_id=None, eos_token_id=1, **size, **heads, **changes)
    )


def reward(completions, **_):
    return [sum(map(ord, text)) % 7 / 7 for text in completions]


def config(folder, **changes):
    settings = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_iterations": 2,
        "max_completion_length": 12,
        "max_steps": 4,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "bf16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
    }
    return GRPOConfig(output_dir=str(folder), **{**settings, **changes})


def trainer(folder, kind=GRPOTrainer, model=None, options=None, **changes):
    return kind(
        model=model or policy(),
        reward_funcs=reward,
        args=config(folder, **changes),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tokenizer(),
        **(options or {}),
    )


def steps(trained):
    """The log lines of the optimizer steps."""
    return [line for line in trained.state.log_history if "loss" in line]
