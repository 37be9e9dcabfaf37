"""The output layer of a language model: from hidden states to tempered logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


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
