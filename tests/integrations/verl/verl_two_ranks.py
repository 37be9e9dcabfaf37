"""Run by torchrun with two ranks, each with half of the sequences: gradients and metrics must be those of the whole.

With `turns`, these are completions of several turns.
"""

import sys

import torch
import torch.distributed as dist
from test_turns import with_tools
from test_verl import Batch, controlled

from entrostat.control import EntropyController, IncreaseThenDecrease

dist.init_process_group("gloo")
mine = [[0, 4, 5], [1, 2, 3]][dist.get_rank()]
batch = with_tools if sys.argv[2:] == ["turns"] else Batch
loss = controlled(EntropyController(IncreaseThenDecrease(), 10))
_, gradients, _ = batch(mine, dp_size=2).step(loss, distillation_use_topk=True)
gradients_of_whole, metrics_of_whole = torch.load(sys.argv[1], weights_only=False)
for row, gradient in zip(mine, gradients, strict=True):
    torch.testing.assert_close(gradient / 2, gradients_of_whole[row])
found = loss.finish_step(dist.group.WORLD)
assert found.keys() == metrics_of_whole.keys()
assert any("turns/" in name for name in found) == (batch is with_tools)
for name, value in found.items():
    assert abs(value - metrics_of_whole[name]) < 1e-6, name
print("agrees", flush=True)
dist.barrier()
dist.destroy_process_group()
