"""Run by torchrun with two processes: FSDP2 of layers and root, tied embeddings, under a controller as in plain TRL.

accelerate shards on GPUs only, so torch's `fully_shard` is called here, where accelerate would.
"""

import os
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from trl import GRPOTrainer
from trl_world import policy, steps, trainer

from entrostat.control import Constant, EntropyController
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer


def trained(folder, kind, statistics=None):
    options = {"controller": EntropyController(Constant(), 2), "statistics": statistics} if statistics else None
    run = trainer(folder, kind, policy(tie_word_embeddings=True), options, max_steps=2)

    def shard(model, *_, **__):
        for layer in model.model.layers:
            fully_shard(layer)
        return fully_shard(model)

    run.accelerator.prepare_model = shard
    run.train()
    assert all(isinstance(parameter, DTensor) for parameter in run.model.parameters())
    return run


folder = Path(sys.argv[1])
plain = trained(folder / "plain", GRPOTrainer)
for statistics in ("head", "logits"):
    ours = trained(folder / statistics, EntropyGRPOTrainer, statistics)
    for theirs, found in zip(steps(plain), steps(ours), strict=True):
        for name in theirs.keys() - {"step_time"}:
            assert abs(found[name] - theirs[name]) < 1e-5, (name, found[name], theirs[name])
    for a, b in zip(plain.model.parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(a.full_tensor(), b.full_tensor(), rtol=0, atol=1e-5)
print("agrees", flush=True)
plain.accelerator.wait_for_everyone()
os._exit(0)
