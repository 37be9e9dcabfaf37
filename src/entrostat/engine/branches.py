"""The prefixes of completions during sampling: each is read once for all rows that share it.

Their keys and values are in a cache that writes new tokens in place. The library's own growing cache copies all earlier
keys and values at every token, which took two fifths of the time of sampling with the embedded policy on a CPU.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer

from entrostat.engine.policy import Policy, PolicyError


class Branches:
    """The prefixes of the completions that are being drawn for left-padded prompts (P, W); initially the prompts.

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
    model accepts that; converting a mask of ones takes the model time at every step.
    """
    if not policy.packs:
        return attention.long()
    hidden, dtype = ~attention[:, None, None], policy.model.dtype
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values (B, heads, T, D), views of buffers for `rows` rows of `capacity` tokens."""

    keys: Tensor
    values: Tensor

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, capacity
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the states (B, heads, t, D) and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._buffers is None or after > self._buffers[0].shape[-2]:
            self._buffers = (self._buffer(self.keys, key_states, after), self._buffer(self.values, value_states, after))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: len(states), :, before:after] = states
        self._show(len(key_states), after)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i the previous row beam_idx[i]; rows may be dropped or repeated. If the first rows keep their
        places, only the rows after them are copied.
        """
        if self._buffers is None:
            return
        before, _, length, _ = self.keys.shape
        stay = len(beam_idx) >= before and bool(beam_idx[:before].equal(torch.arange(before, device=beam_idx.device)))
        if stay and len(beam_idx) <= len(self._buffers[0]):
            for buffer in self._buffers:
                buffer[before : len(beam_idx), :, :length] = buffer[beam_idx[before:], :, :length]
        else:
            self._buffers = (self._chosen(self.keys, beam_idx), self._chosen(self.values, beam_idx))
        self._show(len(beam_idx), length)

    def _show(self, rows: int, length: int) -> None:
        assert self._buffers is not None
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)

    def _chosen(self, held: Tensor, rows: Tensor) -> Tensor:
        _, heads, length, width = held.shape
        buffer = held.new_empty((max(self.rows, len(rows)), heads, max(self.capacity, length), width))
        torch.index_select(held, 0, rows, out=buffer[: len(rows), :, :length])
        return buffer

    def _buffer(self, held: Tensor, states: Tensor, needed: int) -> Tensor:
        batch, heads, _, width = states.shape
        buffer = states.new_empty((max(self.rows, batch), heads, max(self.capacity, needed), width))
        if held.numel():
            buffer[:batch, :, : held.shape[-2]] = held
        return buffer


def growing_cache(config: Any, rows: int, capacity: int) -> DynamicCache:
    """An empty cache for a model of `config`; layers for which the library has a special type keep that type."""
    cache = DynamicCache(config=config)
    cache.layers = [
        PreallocatedLayer(rows, capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def cache_name(model: Any) -> str:
    """The model's name for the cache that it takes and returns; transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
