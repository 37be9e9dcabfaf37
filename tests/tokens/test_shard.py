"""A vocabulary spread over ranks gives, on each rank, what one process computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import CONTEXT
from torch import Tensor

from entrostat.tokens import TokenStats, VocabShard, fused_token_stats, token_stats

ROWS, DEPTH, VOCAB = 12, 8, 1003


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, DEPTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCAB, DEPTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(VOCAB, generator=generator, dtype=torch.float64)
    bias[:400] = -torch.inf  # with two ranks or more the first one's part of the support is small or empty
    return hidden, weight, bias, torch.randint(400, VOCAB, (ROWS,), generator=generator)


def values(stats: TokenStats) -> Tensor:
    return torch.stack((stats.logp, stats.entropy, stats.collision, stats.correction))


def work(shard: VocabShard | None, part: slice) -> dict[str, Any]:
    """Statistics and gradients from hidden states and from logits, of this rank's part of the vocabulary."""
    hidden, weight, bias, ids = problem()
    hidden, weight, bias = hidden.requires_grad_(), weight[part].requires_grad_(), bias[part]
    fused = fused_token_stats(hidden, weight, ids, bias, 0.9, entropy_grad=True, softcap=5.0, shard=shard)
    logits = (hidden @ weight.T + bias).detach().requires_grad_()
    plain = token_stats(logits, ids, 0.9, entropy_grad=True, shard=shard)
    (fused.logp.sum() + 2 * fused.entropy.sum()).backward()
    (plain.logp.sum() + 2 * plain.entropy.sum()).backward()
    result = {"fused": values(fused), "plain": values(plain)}
    return result | {"d_hidden": hidden.grad, "d_weight": weight.grad, "d_logits": logits.grad.T}


def complaint(shard: VocabShard, part: slice) -> str:
    """What this rank says of a logit of the last rank that is NaN."""
    hidden, weight, bias, ids = problem()
    bias[VOCAB - 1] = torch.nan
    with pytest.raises(ValueError, match="is nan") as error:
        fused_token_stats(hidden, weight[part], ids, bias[part], shard=shard)
    return str(error.value)


def run_rank(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    start, stop = VOCAB * rank // ranks, VOCAB * (rank + 1) // ranks
    shard, part = VocabShard(start, VOCAB, dist.group.WORLD), slice(start, stop)
    torch.save(work(shard, part) | {"complaint": complaint(shard, part)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_agree_with_one_process(ranks: int, tmp_path: Path) -> None:
    processes = [CONTEXT.Process(target=run_rank, args=(rank, ranks, str(tmp_path))) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * ranks
    whole = work(None, slice(None))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    for part in parts:
        for name in ("fused", "plain", "d_hidden"):
            torch.testing.assert_close(part[name], whole[name], rtol=1e-10, atol=1e-13)
    for name in ("d_weight", "d_logits"):
        torch.testing.assert_close(torch.cat([p[name] for p in parts]), whole[name], rtol=1e-10, atol=1e-13)
    assert [p["complaint"].partition(" is ")[0] for p in parts] == ["logits[0]"] * (ranks - 1) + ["logits[0, 1002]"]


def test_a_group_of_one_holds_the_whole_vocabulary() -> None:
    """In this process: the gathering and adding of parts changes nothing where there is only one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shard, whole = VocabShard(0, VOCAB, dist.group.WORLD), work(None, slice(None))
        alone = work(shard, slice(None))
        sums = torch.randn(6, 5)
        assert torch.equal(shard.gather(sums), sums[None])
    finally:
        dist.destroy_process_group()
    for name, value in whole.items():
        torch.testing.assert_close(alone[name], value, rtol=1e-10, atol=1e-13)
