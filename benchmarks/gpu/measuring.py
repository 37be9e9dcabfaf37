"""Sizes, clock and peak memory of the measurements in this folder; each program prints one JSON object per result."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Work = Callable[[], object]


def say(**result: Any) -> None:
    """Print one result as a line of JSON, at once."""
    print(json.dumps(result), flush=True)


def attempt(what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Print `what` with the result of `measure`, or with its error: one failure does not end a program."""
    try:
        result = measure()
    except Exception as error:  # out of memory, a kernel that does not compile, a missing package
        result = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
    say(**what, **result)
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def seconds_of(work: Work) -> float:
    """Wall seconds of one call, the work of the device included."""
    synchronise()
    begun = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - begun


def median_seconds(work: Work, repeats: int) -> float:
    """Median wall seconds of `repeats` calls after one that is not counted."""
    seconds_of(work)
    return statistics.median(seconds_of(work) for _ in range(repeats))


def peak_megabytes(work: Work) -> float | None:
    """Peak memory in MB that one call allocates above what is held before it; None without a GPU."""
    if DEVICE == "cpu":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    synchronise()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
