"""Are the Triton kernels right? Values and gradients against float64 sums over the same inputs.

    python benchmarks/gpu/kernels.py              on a GPU, up to 262 144 tokens in the vocabulary
    python benchmarks/gpu/kernels.py --rehearse   small, on a CPU in Triton's interpreter

float16 takes the PyTorch code on every device (its gradients underflow in the kernels' tiles), and is held to the same
limits. Exits with 1 if a case is beyond its limit.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from dataclasses import dataclass
from typing import Any

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rehearse", action="store_true")
REHEARSE = parser.parse_args().rehearse
if REHEARSE:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported

import torch  # noqa: E402
from measuring import DEVICE, attempt  # noqa: E402
from torch import Tensor  # noqa: E402

from entrostat.tokens import fused, fused_token_stats, token_stats, triton_kernel  # noqa: E402

FIELDS = ("logp", "entropy", "collision", "correction")
VALUE_LIMIT = 2e-4  # nats, of every field
GRADIENT_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}  # of the gradient's norm
SIZES = [(37, 32, 300)] if REHEARSE else [(100, 896, 1000), (256, 896, 151_936), (128, 3584, 262_144)]
DTYPES = (torch.float32,) if REHEARSE else (torch.bfloat16, torch.float32, torch.float16)


@dataclass(frozen=True)
class Case:
    """Sizes, type, and what the output layer has."""

    tokens: int
    depth: int
    vocabulary: int
    dtype: torch.dtype
    feature: str

    def options(self) -> dict[str, Any]:
        return {"softcap": 30.0} if self.feature == "softcap" else {}

    def bias(self, generator: torch.Generator) -> Tensor | None:
        """None, a bias, or one that takes a tenth of the vocabulary out of the support."""
        if self.feature not in ("bias", "-inf columns"):
            return None
        bias = torch.randn(self.vocabulary, generator=generator)
        if self.feature == "-inf columns":
            bias[::10] = -torch.inf
        return bias.to(DEVICE, self.dtype)


def compare(case: Case) -> dict[str, Any]:
    """Greatest error of each value, and the error of each gradient as a share of its norm."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(case.tokens, case.depth, generator=generator).to(DEVICE, case.dtype).requires_grad_()
    scale = 3 / case.depth**0.5
    weight = torch.randn(case.vocabulary, case.depth, generator=generator).mul(scale).to(DEVICE, case.dtype)
    weight.requires_grad_()
    bias = case.bias(generator)
    ids = (torch.randint(case.vocabulary // 10, (case.tokens,), generator=generator) * 10 + 1).to(DEVICE)
    temperature = 0.7 if case.feature == "temperature" else 1.0
    stats = fused_token_stats(hidden, weight, ids, bias, temperature, True, **case.options())
    found = torch.autograd.grad((stats.logp + 0.5 * stats.entropy).sum(), (hidden, weight))

    exact_hidden, exact_weight = (t.detach().double().requires_grad_() for t in (hidden, weight))
    logits = exact_hidden @ exact_weight.T
    if bias is not None:
        logits = logits + bias.double()
    if case.feature == "softcap":
        logits = 30.0 * torch.tanh(logits / 30.0)
    exact = token_stats(logits, ids, temperature, entropy_grad=True)
    expected = torch.autograd.grad((exact.logp + 0.5 * exact.entropy).sum(), (exact_hidden, exact_weight))
    errors = {name: float((getattr(stats, name) - getattr(exact, name)).abs().max()) for name in FIELDS}
    gradients = {
        name: float((got.double() - want).norm() / want.norm())
        for name, got, want in zip(("d_hidden", "d_weight"), found, expected, strict=True)
    }
    limit = GRADIENT_LIMITS[case.dtype]
    ok = max(errors.values()) <= VALUE_LIMIT and max(gradients.values()) <= limit
    return {"ok": ok, **errors, **gradients, "value_limit": VALUE_LIMIT, "gradient_limit": limit}


def main() -> None:
    if REHEARSE:
        fused.backend = lambda *_: triton_kernel
    features = ("plain", "bias", "-inf columns", "softcap", "temperature")
    failed = []
    for size, dtype, feature in itertools.product(SIZES, DTYPES, features):
        case = Case(*size, dtype, feature)
        name = {"case": feature, "dtype": str(dtype).removeprefix("torch."), "shape": list(size)}

        def measure(case: Case = case) -> dict[str, Any]:
            result = compare(case)
            failed.extend([case] * (not result["ok"]))
            return result

        attempt(name, measure)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
