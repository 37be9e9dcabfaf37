"""Sampling groups of completions with a key-value cache, keeping the probabilities they were sampled with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entrostat.engine.policy import Policy


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions of a batch of prompts, B = prompts x samples rows in prompt order.

    prompts, prompt_mask: (B, P), padded on the left. completions, mask: (B, T), padded on the right, the end token
    included. old_logp: (B, T) float32, log-probability of each token under the distribution it was drawn from.
    entropy: (B, T) float32, entropy of that distribution in nats. truncated: (B,) no end token within the limit.
    """

    prompts: Tensor
    prompt_mask: Tensor
    completions: Tensor
    mask: Tensor
    old_logp: Tensor
    entropy: Tensor
    truncated: Tensor
    texts: tuple[str, ...]

    @property
    def lengths(self) -> Tensor:
        """Completion lengths in tokens (B,)."""
        return self.mask.sum(1)

    @property
    def token_count(self) -> int:
        """Completion tokens in all."""
        return int(self.mask.sum())

    def rows(self, index: Tensor) -> Rollout:
        """The rows of `index` (K,), cut to their longest completion."""
        width = max(1, int(self.lengths[index].max()))
        return Rollout(
            self.prompts[index],
            self.prompt_mask[index],
            self.completions[index, :width],
            self.mask[index, :width],
            self.old_logp[index, :width],
            self.entropy[index, :width],
            self.truncated[index],
            tuple(self.texts[i] for i in index.tolist()),
        )


def _left_padded(policy: Policy, prompts: Sequence[str], samples: int) -> tuple[Tensor, Tensor]:
    encoded = [policy.encode(prompt) for prompt in prompts]
    width = max(len(ids) for ids in encoded)
    tokens = torch.full((len(encoded), width), policy.pad_id)
    mask = torch.zeros((len(encoded), width), dtype=torch.bool)
    for i, ids in enumerate(encoded):
        tokens[i, width - len(ids) :] = torch.tensor(ids)
        mask[i, width - len(ids) :] = True
    return tokens.repeat_interleave(samples, 0), mask.repeat_interleave(samples, 0)


def _draw(logp: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distribution: tokens (B,) from log-probabilities (B, V) and uniforms (B,) in [0, 1)."""
    cumulative = logp.double().exp().cumsum(-1)
    threshold = uniform.double().unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp_max(logp.shape[-1] - 1)


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[str],
    samples: int,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    batch_rows: int = 512,
) -> Rollout:
    """Draw `samples` completions of every prompt, `batch_rows` of them at a time.

    Row i's token t is drawn by the uniform number u[i, t] of a generator seeded with `seed`: two policies sampled with
    one seed differ by their probabilities alone (common random numbers), whichever rows end early.
    """
    if not prompts:
        raise ValueError("prompts: the list is empty; give at least one prompt")
    tokens, mask = _left_padded(policy, prompts, samples)
    uniform = torch.rand((len(tokens), max_new_tokens), generator=torch.Generator().manual_seed(seed))
    parts = [
        _complete(policy, tokens[rows], mask[rows], uniform[rows], temperature)
        for rows in (slice(start, start + batch_rows) for start in range(0, len(tokens), batch_rows))
    ]
    return concatenate(parts, policy.pad_id)


def _complete(policy: Policy, prompts: Tensor, prompt_mask: Tensor, uniform: Tensor, temperature: float) -> Rollout:
    """Complete left-padded prompts (B, P), token t of row i drawn by uniform[i, t]; ended rows leave the batch."""
    (rows, limit), device = uniform.shape, policy.device
    uniform = uniform.to(device)
    stops = torch.tensor(policy.stop_ids, device=device)
    completions = torch.full((rows, limit), policy.pad_id, device=device)
    old_logp = torch.zeros((rows, limit), device=device)
    entropy = torch.zeros((rows, limit), device=device)
    mask = torch.zeros((rows, limit), dtype=torch.bool, device=device)

    alive = torch.arange(rows, device=device)
    tokens, attention = prompts.to(device), prompt_mask.to(device)
    positions = (attention.long().cumsum(1) - 1).clamp_min(0)
    cache = None
    for t in range(limit):
        out = policy.model(
            input_ids=tokens,
            attention_mask=attention.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        logp = torch.log_softmax(out.logits[:, -1].float() / temperature, dim=-1)
        token = _draw(logp, uniform[alive, t])
        completions[alive, t] = token
        old_logp[alive, t] = logp.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        entropy[alive, t] = torch.special.entr(logp.exp()).sum(-1)
        mask[alive, t] = True
        going = (~torch.isin(token, stops)).nonzero().squeeze(-1)
        if len(going) < len(alive):
            alive = alive[going]
            if len(alive) == 0:
                break
            cache.batch_select_indices(going)
            token, attention, positions = token[going], attention[going], positions[going]
        tokens = token.unsqueeze(-1)
        attention = torch.cat([attention, attention.new_ones((len(alive), 1))], dim=1)
        positions = positions[:, -1:] + 1

    completions, mask = completions.cpu(), mask.cpu()
    truncated = torch.zeros(rows, dtype=torch.bool)
    truncated[alive.cpu()] = True
    texts = tuple(policy.decode(row[keep].tolist()) for row, keep in zip(completions, mask, strict=True))
    whole = Rollout(prompts, prompt_mask, completions, mask, old_logp.cpu(), entropy.cpu(), truncated, texts)
    return whole.rows(torch.arange(rows))


def concatenate(parts: Sequence[Rollout], pad_id: int) -> Rollout:
    """Several rollouts as one, padded to the widest."""
    prompt_width = max(part.prompts.shape[1] for part in parts)
    width = max(part.completions.shape[1] for part in parts)

    def left(x: Tensor, fill: int | bool) -> Tensor:
        return torch.nn.functional.pad(x, (prompt_width - x.shape[1], 0), value=fill)

    def right(x: Tensor, fill: float | bool) -> Tensor:
        return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=fill)

    return Rollout(
        torch.cat([left(part.prompts, pad_id) for part in parts]),
        torch.cat([left(part.prompt_mask, False) for part in parts]),
        torch.cat([right(part.completions, pad_id) for part in parts]),
        torch.cat([right(part.mask, False) for part in parts]),
        torch.cat([right(part.old_logp, 0.0) for part in parts]),
        torch.cat([right(part.entropy, 0.0) for part in parts]),
        torch.cat([part.truncated for part in parts]),
        tuple(text for part in parts for text in part.texts),
    )
