"""The prefixes of completions during sampling; each is read once for all rows that share it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from entrostat.engine.cache import cache_name, growing_cache
from entrostat.engine.policy import Policy, PolicyError


class Branches:
    """The prefixes of the completions that are being drawn for left-padded prompts (P, W); at first the prompts.

    rows, limit: maximum completions, and tokens of each. logits: (U, V) of the token after each of the U branches.
    Raises PolicyError for a model without a key-value cache.
    """

    def __init__(self, policy: Policy, prompts: Tensor, prompt_mask: Tensor, rows: int, limit: int) -> None:
        self.policy, self.width = policy, prompts.shape[1]
        self.cache = growing_cache(policy.model.config, rows, self.width + limit)
        positions = (prompt_mask.long().cumsum(1) - 1).clamp_min(0)
        self.logits = self._read(prompts, prompt_mask.long(), positions)
        self.seen = _visible(policy, pad(prompt_mask, (0, limit), value=True))
        self.positions = positions[:, -1:]

    def grow(self, place: Tensor, token: Tensor) -> Tensor:
        """Append the `token` (K,) that each row drew at its `place` (K,); return the new places of the rows (K,).

        If a branch splits, one part keeps its place and the others are added at the end; branches without a row are
        dropped once they are a quarter of all.
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
        """Logits (U, V) of the token after `tokens` (U, t), which are added to the cache."""
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
                f"policy.path: {self.policy.source} ({type(self.policy.model).__name__}) has no key-value cache; "
                "choose a model with attention layers"
            )
        return cast(Tensor, out.logits[:, -1])


def _visible(policy: Policy, attention: Tensor) -> Tensor:
    """The mask (U, T) of a decoding step's keys, made once for all steps: (U, 1, 1, T), added to the scores, if the
    model accepts that; its own conversion from a mask of ones takes time at every step.
    """
    if not policy.packs:
        return attention.long()
    hidden, dtype = ~attention[:, None, None], policy.model.dtype
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)
