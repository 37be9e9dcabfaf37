"""What the device can do: bytes per second of a copy, and operations per second of a matrix product per type.

    python benchmarks/gpu/rates.py [--rehearse]

The limits beside which every other figure of a GPU day is read.
"""

from __future__ import annotations

import argparse

import torch
from measuring import DEVICE, attempt, median_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    rehearse = parser.parse_args().rehearse
    side, count = (128, 1 << 16) if rehearse else (8192, 1 << 30)

    def copy() -> dict[str, float]:
        source = torch.ones(count, device=DEVICE)
        target = torch.empty_like(source)
        seconds = median_seconds(lambda: target.copy_(source), 10)
        return {"TB_per_s": 2 * source.nbytes / seconds / 1e12}

    attempt({"case": "copy, bytes read and written"}, copy)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):

        def product(dtype: torch.dtype = dtype) -> dict[str, float]:
            a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
            seconds = median_seconds(lambda: a @ b, 10)
            return {"TFLOP_per_s": 2 * side**3 / seconds / 1e12}

        attempt({"case": "matrix product", "dtype": str(dtype).removeprefix("torch."), "side": side}, product)


if __name__ == "__main__":
    main()
