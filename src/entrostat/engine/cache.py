"""A key-value cache that writes new tokens in place.

The library's growing cache copies all earlier keys and values at every token, which took two fifths of the time of
sampling with the embedded policy on a CPU.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values (B, heads, T, D), views of buffers with room for `rows` and `capacity` tokens."""

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
        """Make row i the previous row beam_idx[i]; rows may be dropped or repeated. If the first rows stay in their
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
