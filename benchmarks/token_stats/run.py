"""Time and peak memory of each method, each in its own process, one after another in one run.

    python benchmarks/token_stats/run.py table        the methods side by side at the full sizes of the device
    python benchmarks/token_stats/run.py growth       over the vocabulary and over the tokens

Names of methods after the job measure only those; --size N D V measures at a size of your own and keeps no file.
Lines are appended to table.csv or growth.csv beside this file; what is there already of the same device is not measured
again. A method whose package is missing gets a line that says so. Each line is also printed, as JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from methods import METHODS
from torch import Tensor

HERE = Path(__file__).parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {"cpu": [(1024, 896, 151_936)], "cuda": [(4096, 896, 151_936), (16_384, 3584, 151_936)]}
GROWTH_METHODS = ("entrostat fused", "materialised", "cut-cross-entropy (compiled)")
GROWTH = [(512, 896, v) for v in (18_992, 37_984, 75_968, 151_936)] + [(n, 896, 37_984) for n in (128, 256, 1024, 2048)]
KEYS = ("method", "dtype", "tokens", "depth", "vocabulary")
RESULTS = ("forward_s", "both_s", "forward_MB", "both_MB", "logp_error", "error")
FIELDS = ("device", "threads", *KEYS, "repeats", *RESULTS)
LIMIT = "matrix product alone"


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    method: str
    dtype: str
    tokens: int
    depth: int
    vocabulary: int
    repeats: int = 2


def measure(case: Case) -> dict[str, float]:
    """Seconds and MB above inputs and gradients, forward and forward + backward, and the error of logp."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    hidden = torch.randn(case.tokens, case.depth).to(DEVICE, dtype).requires_grad_()
    weight = (torch.randn(case.vocabulary, case.depth) * 0.1).to(DEVICE, dtype).requires_grad_()
    ids = torch.randint(case.vocabulary, (case.tokens,), device=DEVICE)
    gradients = hidden.nbytes + weight.nbytes
    if case.method == LIMIT:
        seconds, _ = cost(lambda: product(hidden.detach(), weight.detach()), case.repeats)
        return {"forward_s": seconds, "both_s": 4 * seconds}
    method = METHODS[case.method]
    torch.autograd.grad(method.step(hidden[:16], weight[:99], ids[:16] % 99).sum(), (hidden, weight))

    def forward() -> Tensor:
        with torch.no_grad():
            return method.step(hidden, weight, ids)

    def both() -> None:
        torch.autograd.grad(method.step(hidden, weight, ids).sum(), (hidden, weight))

    row: dict[str, float] = {}
    if method.gives != "loss":
        row["forward_s"], row["forward_MB"] = cost(forward, case.repeats)
    row["both_s"], peak = cost(both, case.repeats)
    row["both_MB"] = peak - gradients / 1e6
    if method.gives != "loss":
        row["logp_error"] = logp_error(forward()[:16], hidden, weight, ids)
    return row


def product(hidden: Tensor, weight: Tensor, block: int = 1024) -> None:
    """The matrix product at the rate of the inputs' type, into one reused block."""
    out = hidden.new_empty(len(hidden), block)
    for start in range(0, len(weight) - block + 1, block):
        torch.mm(hidden, weight[start : start + block].T, out=out)


def cost(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least time of the repeats, in seconds, and their peak memory in MB above what is held before.

    The time is the processor's on the CPU, as other processes disturb it less, and the clock's on a GPU.
    """
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    before = start_of_peak()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    peak = torch.cuda.max_memory_allocated() / 1e6 if DEVICE == "cuda" else resident("VmHWM")
    return min(times), peak - before


def start_of_peak() -> float:
    """Forget the peak memory so far and return what is held now, in MB."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmHWM")


def resident(field: str) -> float:
    """A field of the process's memory status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def logp_error(logp: Tensor, hidden: Tensor, weight: Tensor, ids: Tensor) -> float:
    """Greatest error of the first tokens' logp against float64 sums of the same inputs."""
    with torch.no_grad():
        log_p = (hidden[: len(logp)].double() @ weight.double().T).log_softmax(-1)
        return float((logp - log_p.gather(1, ids[: len(logp), None])[:, 0]).abs().max())


def run(cases: list[Case], out: Path | None) -> None:
    """Measure each case in its own process; print it and append it to the file, if there is one.

    The cases of an interrupted run are kept.
    """
    for case in cases:
        if out is not None and _key(case) in _measured(out):
            continue
        command = [sys.executable, "-W", "ignore", __file__, "case", json.dumps(asdict(case))]
        child = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if child.returncode:
            result = {"error": "".join(child.stderr.strip().splitlines()[-1:])[:120] or "failed"}
        else:
            result = {k: f"{v:.4g}" for k, v in json.loads(child.stdout.splitlines()[-1]).items()}
        row = {"device": device_name(), "threads": torch.get_num_threads(), **asdict(case), **result}
        if out is not None:
            with out.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS).writerow(row)
        print(json.dumps(row), flush=True)


def _key(case: Case) -> tuple[str, ...]:
    return (device_name(), *(str(getattr(case, key)) for key in KEYS))


def _measured(out: Path) -> set[tuple[str, ...]]:
    """What the file holds already; it is begun where it is missing."""
    if not out.exists():
        out.write_text(",".join(FIELDS) + "\n")
    with out.open(newline="") as file:
        return {(row["device"], *(row[key] for key in KEYS)) for row in csv.DictReader(file)}


def device_name() -> str:
    """The GPU's name, or the processor's with its cores and the units that it has for bfloat16."""
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    has = torch.cpu.get_capabilities()
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if has.get(unit)]
    return ", ".join([str(has.get("cpu_name", "CPU")), f"{os.cpu_count()} cores", *units])


def main() -> None:
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(measure(Case(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["table", "growth"])
    parser.add_argument("--size", type=int, nargs=3, metavar=("N", "D", "V"))
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="a method's name; all without one")
    args = parser.parse_args()
    unknown = set(args.methods) - set(METHODS)
    if unknown:
        parser.error(f"no method {sorted(unknown)[0]!r}; there are {', '.join(METHODS)}")
    wanted = args.methods or METHODS
    runs_here = [name for name, method in METHODS.items() if method.device in (None, DEVICE) and name in wanted]
    if args.job == "table":
        names, dtypes = [LIMIT, *runs_here], ("bfloat16", "float32") if DEVICE == "cpu" else ("bfloat16",)
        run(
            [
                Case(name, dtype, *size)
                for size in ([tuple(args.size)] if args.size else SIZES[DEVICE])
                for dtype in dtypes
                for name in names
                if name == LIMIT or METHODS[name].dtype in (None, dtype)
            ],
            None if args.size else HERE / "table.csv",
        )
    else:
        names = [name for name in GROWTH_METHODS if name in runs_here]
        run([Case(name, "bfloat16", *size) for size in GROWTH for name in names], HERE / "growth.csv")


if __name__ == "__main__":
    main()
