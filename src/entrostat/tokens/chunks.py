"""The output layer of a language model; its sums and gradients over blocks of logits that fit a cache, in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from entrostat.tokens.partial import FIELDS, Upstream, logit_grads, merge, sum_block


@dataclass(frozen=True)
class Head:
    """z = temper(hidden @ weight^T + bias), with temper(y) = softcap tanh(y / softcap) / temperature.

    weight is (V, D), bias (V,) or None; softcap None leaves y as it is.
    """

    weight: Tensor
    bias: Tensor | None
    temperature: float
    softcap: float | None

    def part(self, vocab: slice, buffer: Tensor) -> Head:
        """Return the head of a part of the vocabulary in the buffer's type; other types are copied to the buffer."""
        weight = self.weight[vocab]
        if weight.dtype != buffer.dtype:
            weight = buffer[: len(weight)].copy_(weight)
        bias = None if self.bias is None else self.bias[vocab].to(buffer.dtype)
        return Head(weight, bias, self.temperature, self.softcap)

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the logits (n, V) of hidden states (n, D), which have the weight's type; written to out if given."""
        out = torch.mm(hidden, self.weight.T, out=out)
        if self.bias is not None:
            out.add_(self.bias)
        if self.softcap is not None:
            out.div_(self.softcap).tanh_().mul_(self.softcap)
        return out if self.temperature == 1 else out.div_(self.temperature)

    def slope(self, z: Tensor) -> Tensor | float:
        """Return dz/dy at logits z: (1 - (z temperature / softcap)^2) / temperature."""
        if self.softcap is None:
            return 1 / self.temperature
        return (z * (self.temperature / self.softcap)).square_().neg_().add_(1).div_(self.temperature)


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any tensor is float64, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def gradient_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Return the type of products with the gradient of the logits: bfloat16 if both factors are and the device can.

    Every bfloat16 backward pass rounds that gradient; its product is summed in float32 and rounded once per block.
    """
    native = hidden.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    both = hidden.dtype == weight.dtype == torch.bfloat16
    return torch.bfloat16 if both and native else compute_dtype(hidden, weight)


@contextmanager
def exact_products(*factors: Tensor) -> Iterator[None]:
    """Multiply float32 copies of the factors exactly, as fast as the machine can.

    Autocast is off, so sums stay in float32. On a CPU, bfloat16 values held in float32 are multiplied by its bfloat16
    units: the products are exact and are summed in float32; the gradient of the logits is rounded to bfloat16, as in
    every bfloat16 backward pass. The setting holds for the whole process: float32 products of other threads use the
    same units until the block ends.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    with torch.autocast(factors[0].device.type, enabled=False):
        if all(f.dtype == torch.bfloat16 and f.device.type == "cpu" for f in factors):
            settings.fp32_precision = "bf16"
        try:
            yield
        finally:
            settings.fp32_precision = before


PARTS_HELD = 16  # merging many parts at once costs little more than merging two


@dataclass(frozen=True)
class Gradients:
    """Output buffers for the gradients of hidden (N, D), weight (V, D) and bias (V,); None where none is needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def head_sums(hidden: Tensor, head: Head, ids: Tensor, budget: int) -> Tensor:
    """Return the sums (6, N) of `partial` over the head's vocabulary; ids outside it belong to another part."""
    dtype = compute_dtype(hidden, head.weight)
    rows, columns = block_shape(hidden, dtype, budget)
    block, scratch = hidden.new_empty((2, rows * columns), dtype=dtype)
    weights = hidden.new_empty((columns, hidden.shape[1]), dtype=dtype)
    parts: list[Tensor] = []
    with exact_products(hidden, head.weight):
        states = hidden.to(dtype)
        for vocab in slices(len(head.weight), columns):
            layer = head.part(vocab, weights)
            part = states.new_empty((FIELDS, len(states)))
            for tokens in slices(len(states), rows):
                z = layer.logits(states[tokens], out=shaped(block, tokens, vocab))
                sum_block(z, ids[tokens] - vocab.start, part[:, tokens], shaped(scratch, tokens, vocab))
            parts.append(part)
            if len(parts) == PARTS_HELD:
                parts = [merge(torch.stack(parts))]
    return merge(torch.stack(parts))


def head_grads(hidden: Tensor, head: Head, ids: Tensor, upstream: Upstream, grads: Gradients, budget: int) -> None:
    """Write the gradients; each block of logits is computed again."""
    dtype, product_dtype = compute_dtype(hidden, head.weight), gradient_dtype(hidden, head.weight)
    rows, columns = block_shape(hidden, dtype, budget)
    block, scratch = hidden.new_empty((2, rows * columns), dtype=dtype)
    weights = hidden.new_empty((columns, hidden.shape[1]), dtype=dtype)
    slopes = hidden.new_empty(len(hidden) * columns, dtype=product_dtype)
    every = slice(0, len(hidden))
    with exact_products(hidden, head.weight):
        states, factor = hidden.to(dtype), hidden.to(product_dtype)
        d_states = torch.zeros_like(states)
        for vocab in slices(len(head.weight), columns):
            layer, d_y = head.part(vocab, weights), shaped(slopes, every, vocab)
            for tokens in slices(len(states), rows):
                z = layer.logits(states[tokens], out=shaped(block, tokens, vocab))
                slope = layer.slope(z)
                d_z = logit_grads(z, ids[tokens] - vocab.start, upstream.of(tokens), shaped(scratch, tokens, vocab))
                d_y[tokens] = d_z.mul_(slope)
            if grads.hidden is not None:
                d_states += d_y @ head.weight[vocab].to(product_dtype)
            if grads.weight is not None:
                grads.weight[vocab] = d_y.T @ factor
            if grads.bias is not None:
                grads.bias[vocab] = d_y.sum(0, dtype=dtype)
    if grads.hidden is not None:
        grads.hidden.copy_(d_states)


def block_shape(hidden: Tensor, dtype: torch.dtype, budget: int) -> tuple[int, int]:
    """Return the rows and columns of the largest useful block within budget bytes.

    A column needs three vectors of length D (weight, copy and gradient) and one gradient per token; an element of the
    block needs two numbers. On the CPU the block fits a core's second-level cache; on other devices it is large enough
    to fill the device.
    """
    count, depth = hidden.shape
    most_rows, most_columns = (512, 512) if hidden.device.type == "cpu" else (4096, 8192)
    numbers = budget // dtype.itemsize // 3
    columns = max(1, min(most_columns, numbers // max(1, 3 * depth, count)))
    return max(1, min(most_rows, numbers // (2 * columns))), columns


def slices(count: int, size: int) -> list[slice]:
    """Cut range(count) into slices of at most the size."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def shaped(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
    """View the start of a flat buffer as a matrix whose sides are the lengths of the slices."""
    n, v = rows.stop - rows.start, columns.stop - columns.start
    return buffer[: n * v].view(n, v)
