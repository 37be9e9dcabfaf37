"""What sampling reads: the beginnings of completions, each once for all the rows that share it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from entrostat.engine.cache import cache_name, growing_cache
from entrostat.engine.policy import Policy, PolicyError


class Branches:
    """The beginnings of the completions of left-padded prompts (P, W) that are being drawn, at first the prompts.

    rows, limit: completions, and tokens of one, at most. logits: (U, V) of the token after each of the U branches.
    Raises PolicyError for a model that keeps no key-value cache.
    """

    def __init__(self, policy: Policy, prompts: Tensor, prompt_mask: Tensor, rows: int, limit: int) -> None:
        self.policy, self.width = policy, prompts.shape[1]
        self.cache = growing_cache(policy.model.config, rows, self.width + limit)
        positions = (prompt_mask.long().cumsum(1) - 1).clamp_min(0)
        self.logits = self._read(prompts, prompt_mask.long(), positions)
        self.seen = _visible(policy, pad(prompt_mask, (0, limit), value=True))
        self.positions = positions[:, -1:]

    def grow(self, place: Tensor, token: Tensor) -> Tensor:
        """Go on with the `token` (K,) that each row drew at its `place` (K,); where the rows are then (K,).

        A branch that parts in several stays in its place with one of them, the others come last; branches without a row
        are dropped when they are a quarter of all.
        """
        size = self.logits.shape[-1]
        drawn, branch = torch.unique(place * size + token, return_inverse=True)
        parent, token = drawn // size, drawn % size
        stays = torch.cat([parent.new_ones(1, dtype=torch.bool), parent[1:] != parent[:-1]])
        before = len(self.logits)
        places = torch.where(stays, parent, before - 1 + (~stays).cumsum(0))
        chosen = torch.cat([torch.arange(before, device=parent.device), parent[~stays]])
        if len(drawn) <= 0.75 * len(chosen):
            places, chosen = torch.arange(len(drawn), device=parent.device), parent
        if len(chosen) != before or chosen is parent:
            self.cache.reorder_cache(chosen)
            self.seen, self.positions = self.seen[chosen], self.positions[chosen]
        tokens = token.new_zeros(len(chosen)).scatter(0, places, token)
        self.positions = self.positions + 1
        self.width += 1
        self.logits = self._read(tokens.unsqueeze(-1), self.seen[..., : self.width], self.positions)
        return places[branch]

    def _read(self, tokens: Tensor, attention: Tensor, positions: Tensor) -> Tensor:
        """Logits (U, V) of the token after `tokens` (U, t), which join the cache."""
        name = cache_name(self.policy.model)
        out = self.policy.model(
            input_ids=tokens,
            attention_mask=attention,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{name: self.cache},
        )
        if out.get(name) is not self.cache:
            raise PolicyError(
                f"policy.path: {self.policy.source} ({type(self.policy.model).__name__}) keeps no key-value cache; "
                "choose a model with attention layers"
            )
        return cast(Tensor, out.logits[:, -1])


def _visible(policy: Policy, attention: Tensor) -> Tensor:
    """The mask (U, T) of a decoding step's keys, once for all steps: added to the scores, (U, 1, 1, T), where the model
    reads that, for its own way there from a mask of ones takes time at every step.
    """
    if not policy.packs:
        return attention.long()
    hidden, dtype = ~attention[:, None, None], policy.model.dtype
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)
