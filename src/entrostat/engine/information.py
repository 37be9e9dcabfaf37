"""Whether a policy's completions depend on their prompts: each scored under every prompt of its batch.

The cost is `completions` x prompts sequences through the model, without a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from entrostat.engine.policy import Trainable
from entrostat.engine.rollout import Rollout
from entrostat.entropy import prompt_information
from entrostat.tokens import token_stats


@torch.no_grad()
def measured_information(
    policy: Trainable, rollout: Rollout, completions: int, temperature: float, rows: int
) -> dict[str, float]:
    """The estimates of `prompt_information` for a batch, under the policy's current weights.

    completions: how many are scored, taken evenly from the batch; all if it has fewer. Equal prompts count as one.
    rows: sequences per forward pass.
    """
    places, own = _distinct(rollout)
    count = len(rollout.texts)
    chosen = torch.arange(min(completions, count)) * count // min(completions, count)
    asked, written = torch.cartesian_prod(places, chosen).T  # a prompt's completions in a row share its tokens
    pieces = zip(torch.split(asked, rows), torch.split(written, rows), strict=True)
    logp = torch.cat([_scored(policy, rollout, *piece, temperature) for piece in pieces])
    return prompt_information(logp.view(len(places), len(chosen)).T, own[chosen], rollout.lengths[chosen])


def _distinct(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """The first row (P,) of each distinct prompt, and for each row (B,) the place of its prompt among them."""
    first: dict[tuple[int, ...], int] = {}
    prompts = [tuple(row[mask].tolist()) for row, mask in zip(rollout.prompts, rollout.prompt_mask, strict=True)]
    for row, prompt in enumerate(prompts):
        first.setdefault(prompt, row)
    place = {prompt: number for number, prompt in enumerate(first)}
    return torch.tensor(list(first.values())), torch.tensor([place[prompt] for prompt in prompts])


def _scored(policy: Trainable, rollout: Rollout, asked: Tensor, written: Tensor, temperature: float) -> Tensor:
    """ln p (K,) of the completions of the rows `written`, given the prompts of the rows `asked`."""
    own = rollout.rows(written)
    prompts, prompt_mask = (x[asked].to(policy.device) for x in (rollout.prompts, rollout.prompt_mask))
    completions, mask = (x.to(policy.device) for x in (own.completions, own.mask))
    logits = policy.logits(prompts, prompt_mask, completions, mask)
    logp = token_stats(logits, completions, temperature=temperature).logp
    return logp.where(mask, 0).double().sum(1).cpu()
