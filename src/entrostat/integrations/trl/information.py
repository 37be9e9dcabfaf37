"""Whether completions depend on their prompts, in TRL: each scored under every prompt of its generation batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from entrostat.entropy import estimates, information_terms, turn_numbers
from entrostat.entropy.information import TERMS


@torch.no_grad()
def measured_information(trainer: Any, batch: Mapping[str, Any], completions: int) -> dict[str, float]:
    """The estimates of `prompt_information` for the first turn of a batch that TRL has generated; {} without a token.

    batch: TRL's own, of this rank; the prompts are those of all ranks, equal ones counted once. completions: how many
    are scored, over all ranks and spread evenly over each rank's. Later turns are left out: a tool's replies quote the
    prompt, so that they would give it away. Every rank makes the same number of forward passes.
    Raises ValueError for prompts with images.
    """
    if "pixel_values" in batch:
        raise ValueError("information_every is set, and prompts have images, which are not exchanged; set it to None")
    prompts = [
        tuple(row[own.bool()].tolist()) for row, own in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    ]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(gather_object(prompts)))}
    count = len(prompts)
    kept = min(count, max(1, completions // trainer.accelerator.num_processes))
    rows = torch.arange(kept) * count // kept
    ids, attention, first = _first_turns(batch, rows)
    own = torch.tensor([places[prompts[row]] for row in rows.tolist()], device=ids.device)
    logp = torch.stack([_scored(trainer, prompt, ids, attention, first) for prompt in places], dim=1)
    written = first.any(1)  # a truncated completion may be masked as a whole
    sums = torch.zeros(len(TERMS) + 1, dtype=torch.float64, device=ids.device)
    if written.any():
        sums[:-1] = information_terms(logp[written], own[written], first.sum(1)[written]).sum(1)
        sums[-1] = written.sum()
    *totals, number = trainer.accelerator.reduce(sums, reduction="sum").tolist()
    return estimates([total / number for total in totals], len(places)) if number else {}


def _first_turns(batch: Mapping[str, Any], rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and first turn (K, T) of the completions `rows`, cut after the last of the first turns."""
    seen = batch["completion_mask"]
    own = seen * batch["tool_mask"] if "tool_mask" in batch else seen
    first = turn_numbers(own)[rows] == 1
    width = max(1, int(first.any(0).nonzero().max()) + 1 if first.any() else 1)
    return batch["completion_ids"][rows, :width], seen[rows, :width], first[:, :width]


def _scored(trainer: Any, prompt: tuple[int, ...], ids: Tensor, attention: Tensor, first: Tensor) -> Tensor:
    """ln p (K,) of the first turns, given the prompt."""
    asked = torch.tensor(prompt, device=ids.device).expand(len(ids), -1)
    logp, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([asked, ids], 1),
        torch.cat([torch.ones_like(asked), attention], 1),
        ids.shape[1],
        batch_size=trainer.args.per_device_train_batch_size,
    )
    total: Tensor = logp.where(first, 0).double().sum(1)
    return total
