# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,no-untyped-call,untyped-decorator"
# ruff: noqa: ARG001, N803
"""Sums and gradients of an output layer on a GPU; tiles of logits stay in registers.

The forward kernel multiplies a tile of tokens by one tile of the vocabulary after another and adds each tile to the
sums of `partial`; several programs share the vocabulary, and `merge` joins their sums. The backward kernel computes
a tile again and writes only its gradient, from which two matrix products give the gradients of hidden and weight.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from entrostat.tokens.chunks import Gradients, Head, slices
from entrostat.tokens.partial import FIELDS, Upstream, merge

COLUMN_TILE = 128
PROGRAMS = 1024

LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
NO_WEIGHT = tl.constexpr(-87.33)  # exp() of less is a denormal number
FAR = tl.constexpr(-1e4)


def head_sums(hidden: Tensor, head: Head, ids: Tensor, budget: int) -> Tensor:
    """The same as chunks.head_sums; the tiles are in registers, so the budget is not used."""
    count, vocabulary = len(hidden), len(head.weight)
    row_tiles, column_tiles = triton.cdiv(count, _row_tile(hidden)), triton.cdiv(vocabulary, COLUMN_TILE)
    splits = max(1, min(column_tiles, PROGRAMS // max(1, row_tiles)))
    width = triton.cdiv(column_tiles, splits) * COLUMN_TILE
    splits = triton.cdiv(vocabulary, width)
    parts = hidden.new_empty((splits, FIELDS, count), dtype=torch.float32)
    if count:
        layer, options = _layer(hidden, head), _options(hidden, head)
        with torch.cuda.device_of(hidden):
            _sums_kernel[(row_tiles, splits)](*layer, ids.contiguous(), parts, width, **options)
    return merge(parts)


def head_grads(hidden: Tensor, head: Head, ids: Tensor, upstream: Upstream, grads: Gradients, budget: int) -> None:
    """The same as chunks.head_grads; the budget bounds the gradient of a chunk of logits, in the type of hidden."""
    count, vocabulary = len(hidden), len(head.weight)
    affordable = budget // (max(1, count) * hidden.itemsize)
    columns = max(1, affordable // COLUMN_TILE) * COLUMN_TILE
    states, d_states = hidden.contiguous(), torch.zeros_like(hidden, dtype=torch.float32)
    d_entropy = torch.zeros_like(upstream.d_logp) if upstream.d_entropy is None else upstream.d_entropy
    rows = (upstream.log_norm, upstream.entropy, upstream.d_logp.contiguous(), d_entropy.contiguous())
    for vocab in slices(vocabulary, min(columns, vocabulary)):
        weight = head.weight[vocab]
        d_y = states.new_empty((count, len(weight)))
        if count:
            grid = (triton.cdiv(count, _row_tile(states)), triton.cdiv(len(weight), COLUMN_TILE))
            layer, options = _layer(states, head), _options(states, head)
            with torch.cuda.device_of(hidden):
                _grads_kernel[grid](*layer, ids.contiguous(), *rows, d_y, vocab.start, vocab.stop, **options)
        if grads.hidden is not None:
            d_states += _product(d_y, weight)
        if grads.weight is not None:
            grads.weight[vocab] = _product(d_y.T, states)
        if grads.bias is not None:
            grads.bias[vocab] = d_y.sum(0, dtype=torch.float32)
    if grads.hidden is not None:
        grads.hidden.copy_(d_states)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b summed in float32; on the CPU, where Triton's interpreter runs, the product has no such option."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else torch.mm(a.float(), b.float())


def _layer(hidden: Tensor, head: Head) -> tuple[Any, ...]:
    weight = head.weight.contiguous()
    bias = weight if head.bias is None else head.bias.contiguous()
    softcap = 1.0 if head.softcap is None else head.softcap
    return hidden.contiguous(), weight, bias, softcap, head.temperature, *hidden.shape, len(weight)


def _row_tile(hidden: Tensor) -> int:
    """Return the rows of a tile: twice as many float32 rows do not fit the registers."""
    return 64 if hidden.dtype == torch.float32 else 128


def _options(hidden: Tensor, head: Head) -> dict[str, Any]:
    rows = _row_tile(hidden)
    tiles = {"ROWS": rows, "COLUMNS": COLUMN_TILE, "DEPTHS": rows // 2}
    return tiles | {"BIASED": head.bias is not None, "CAPPED": head.softcap is not None, "num_warps": 8}


@triton.jit
def _tile(
    hidden, weight, bias, softcap, temperature, count, depth, stop, rows, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTHS: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """Return the tempered logits of a tile; -inf from column stop on."""
    z = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, depth, DEPTHS):
        k = start + tl.arange(0, DEPTHS)
        inside = k < depth
        h = tl.load(hidden + rows[:, None] * depth + k[None, :], (rows < count)[:, None] & inside[None, :], other=0)
        w = tl.load(
            weight + columns[None, :] * depth + k[:, None], (columns < stop)[None, :] & inside[:, None], other=0
        )
        z = tl.dot(h, w, z, input_precision="ieee")
    if BIASED:
        z += tl.load(bias + columns, columns < stop, other=0).to(tl.float32)[None, :]
    if CAPPED:
        z = softcap - 2 * softcap / (1 + tl.exp(2 * z / softcap))
    return tl.where((columns < stop)[None, :], z / temperature, float("-inf"))


@triton.jit
def _near(gap):
    return tl.where(gap > NO_WEIGHT, gap, FAR)


@triton.jit
def _sums_kernel(
    hidden, weight, bias, softcap, temperature, count, depth, vocabulary, ids, parts, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTHS: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tokens = tl.load(ids + rows, rows < count, other=-1)
    first = tl.program_id(1) * width
    stop = tl.minimum(first + width, vocabulary)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    sampled = tl.full((ROWS,), float("-inf"), tl.float32)
    rest = tl.full((ROWS,), -1.0, tl.float32)
    tilt = tl.zeros((ROWS,), tl.float32)
    square = tl.zeros((ROWS,), tl.float32)
    comoment = tl.zeros((ROWS,), tl.float32)
    nans = tl.zeros((ROWS,), tl.int32)
    for start in range(first, stop, COLUMNS):
        columns = start + tl.arange(0, COLUMNS).to(tl.int64)
        z = _tile(
            hidden, weight, bias, softcap, temperature, count, depth, stop, rows, columns,
            ROWS, COLUMNS, DEPTHS, BIASED, CAPPED,
        )  # fmt: skip
        nans += tl.sum((z != z).to(tl.int32), 1)
        hit = tl.where(columns[None, :] == tokens[:, None], z, float("-inf"))
        sampled = tl.maximum(sampled, tl.max(hit, 1))
        tile_peak = tl.max(z, 1)
        gap = _near(z - tl.maximum(tile_peak, LOWEST)[:, None])
        weights = tl.exp(gap)
        others = tl.where(gap == 0, 0.0, weights)
        tile_rest = tl.sum(others, 1) + (tl.sum((gap == 0).to(tl.float32), 1) - 1)
        tile_norm = tl.maximum(1 + tile_rest, 1.0)
        tile_tilt = tl.sum(weights * gap, 1)
        tile_square = tl.sum(weights * weights, 1)
        tile_gap = tile_tilt / tile_norm
        tile_weight = tile_square / tile_norm
        tile_comoment = tl.sum(weights * (weights - tile_weight[:, None]) * (gap - tile_gap[:, None]), 1)

        top = tl.maximum(tl.maximum(peak, tile_peak), LOWEST)
        shift, tile_shift = _near(peak - top), _near(tile_peak - top)
        scale, tile_scale = tl.exp(shift), tl.exp(tile_shift)
        mass, tile_mass = (1 + rest) * scale, (1 + tile_rest) * tile_scale
        norm = tl.maximum(1 + rest, 1.0)
        apart = (square / norm * scale - tile_weight * tile_scale) * (tilt / norm + shift - tile_gap - tile_shift)
        rest = tl.where(tile_peak > peak, tile_rest + mass, rest + tile_mass)
        between = mass * tile_mass / tl.maximum(1 + rest, 1.0) * apart
        comoment = comoment * scale * scale + tile_comoment * tile_scale * tile_scale + between
        tilt = tilt * scale + mass * shift + tile_tilt * tile_scale + tile_mass * tile_shift
        square = square * scale * scale + tile_square * tile_scale * tile_scale
        peak = tl.maximum(peak, tile_peak)
    out = parts + tl.program_id(1).to(tl.int64) * 6 * count + rows
    tl.store(out, tl.where(nans > 0, float("nan"), peak), rows < count)
    tl.store(out + count, rest, rows < count)
    tl.store(out + 2 * count, tilt, rows < count)
    tl.store(out + 3 * count, square, rows < count)
    tl.store(out + 4 * count, comoment, rows < count)
    tl.store(out + 5 * count, sampled, rows < count)


@triton.jit
def _grads_kernel(
    hidden, weight, bias, softcap, temperature, count, depth, vocabulary, ids, log_norm, entropy, d_logp, d_entropy,
    d_y, first, stop,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTHS: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = first + tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = rows < count
    z = _tile(
        hidden, weight, bias, softcap, temperature, count, depth, stop, rows, columns,
        ROWS, COLUMNS, DEPTHS, BIASED, CAPPED,
    )  # fmt: skip
    log_p = _near(z - tl.load(log_norm + rows, inside, other=0)[:, None])
    up = tl.load(d_logp + rows, inside, other=0)[:, None]
    slope = tl.load(d_entropy + rows, inside, other=0)[:, None]
    nats = tl.load(entropy + rows, inside, other=0)[:, None]
    hit = columns[None, :] == tl.load(ids + rows, inside, other=-1)[:, None]
    grad = tl.where(hit, up, 0.0) - tl.exp(log_p) * (up + slope * (log_p + nats))
    if CAPPED:
        bent = z * temperature / softcap
        grad *= tl.where(columns[None, :] < stop, 1 - bent * bent, 0.0)
    out = d_y + rows[:, None] * (stop - first) + (columns - first)[None, :]
    tl.store(out, (grad / temperature).to(d_y.dtype.element_ty), inside[:, None] & (columns < stop)[None, :])
