"""verl's own FSDP2 checkpoints on one CPU rank, as a campaign uses them: a program that prints what it has shown."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from entrostat.engine.policy import embedded_folder
from entrostat.integrations.verl.engine import CONTENTS, SAVED

folder = Path(sys.argv[1])
os.environ.update(RANK="0", WORLD_SIZE="1")
dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
torch.manual_seed(0)
heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
model = LlamaForCausalLM(LlamaConfig(vocab_size=171, architectures=["LlamaForCausalLM"], **heads, **size))
fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
contents = {"save_contents": SAVED, "load_contents": CONTENTS}
tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
manager = FSDPCheckpointManager(model, optimizer, schedule, tokenizer, contents)


def train():
    ids = torch.randint(171, (2, 8))
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    return weights()


def weights():
    return {name: value.full_tensor().clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


start = weights()
manager.save_checkpoint(str(folder / "start"), None, 0, None)
train()
second = train()
manager.save_checkpoint(str(folder / "now"), None, 2, None)
manager.load_checkpoint(str(folder / "start"))
if same(weights(), start) and not same(start, second):
    print("the start is back")
manager.load_checkpoint(str(folder / "now"))
visited = train()
manager.load_checkpoint(str(folder / "now"))
if same(visited, train()):
    print("training goes on as without the visit")
kept = load_file(folder / "now/huggingface/model.safetensors")
if same(kept, second) and kept.keys() == second.keys():
    print("the folder in Hugging Face format holds the weights, unrounded")
dist.destroy_process_group()
