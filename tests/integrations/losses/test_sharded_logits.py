"""Logits that a tensor-parallel group shares have the statistics of the whole logits, as each host shares them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from entrostat.integrations.losses import nemo_rl, roll, slime
from entrostat.integrations.losses.steering import vocabulary_shard
from entrostat.tokens import token_stats

ROWS, LENGTH, VOCABULARY, RANKS = 3, 6, 10, 2


def problem():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(ROWS, LENGTH, VOCABULARY, generator=generator)
    return logits, torch.randint(VOCABULARY, (ROWS, LENGTH), generator=generator)


def values(stats):
    return torch.stack((stats.logp, stats.entropy, stats.collision, stats.correction))


def get_responses(logits, *, args, unconcat_tokens, total_lengths, response_lengths):
    for row, tokens in enumerate(unconcat_tokens):
        yield logits[0, row * LENGTH : (row + 1) * LENGTH - 1], tokens[1:]


def of_hosts(logits, ids, group, mesh_logits):
    """The statistics of tokens 1 to the last, (4, ROWS, LENGTH - 1), as each host hands its logits over."""
    shard = vocabulary_shard(logits.shape[-1], group)
    responses = torch.ones(ROWS, LENGTH, dtype=torch.long)
    batch = {"unconcat_tokens": list(ids.unbind()), "total_lengths": None, "response_lengths": None}
    args = SimpleNamespace(rollout_temperature=0.7)
    packed = slime.statistics(get_responses, shard, args, batch, logits.flatten(0, 1)[None])
    return {
        "roll": values(roll.statistics(logits, ids, responses, shard)),
        "nemo megatron": values(nemo_rl.statistics(logits, ids, group)),
        "nemo dtensor": values(nemo_rl.statistics(mesh_logits, ids)),
        "slime at .7": values(packed).view(4, ROWS, LENGTH - 1),
    }


def run_rank(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    logits, ids = problem()
    mesh = init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("cp", "tp"))
    spread = distribute_tensor(logits, mesh, [Replicate(), Shard(2)])
    found = of_hosts(logits.chunk(RANKS, -1)[rank].contiguous(), ids, dist.group.WORLD, spread)
    uneven = distribute_tensor(logits[..., :7], mesh, [Replicate(), Shard(2)])
    found["uneven"] = values(nemo_rl.statistics(uneven, ids.clamp_max(6)))
    with pytest.raises(ValueError, match="the control needs whole sequences"):
        nemo_rl.statistics(distribute_tensor(logits, mesh, [Replicate(), Shard(1)]), ids)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_give_what_one_gives(tmp_path):
    here = str(Path(__file__).parent)
    program = f"import sys; sys.path.insert(0, {here!r}); import test_sharded_logits as here; here.run_rank"
    calls = [f"{program}({rank}, {str(tmp_path)!r})" for rank in range(RANKS)]
    ranks = [subprocess.Popen([sys.executable, "-c", call]) for call in calls]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    logits, ids = problem()
    whole = of_hosts(logits, ids, None, logits)
    whole["uneven"] = values(token_stats(logits[:, :-1, :7], ids.clamp_max(6)[:, 1:]))
    expected = values(token_stats(logits[:, :-1], ids[:, 1:]))
    for rank in range(RANKS):
        for name, found in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(found, whole[name], rtol=1e-5, atol=1e-6)
            if name not in ("slime at .7", "uneven"):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    tempered = values(token_stats(logits[:, :-1], ids[:, 1:], 0.7))
    torch.testing.assert_close(whole["slime at .7"], tempered)
