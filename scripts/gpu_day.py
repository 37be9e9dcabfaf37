"""Everything that needs a GPU, in order of worth, within the minutes that one can be had.

    python scripts/gpu_day.py --minutes 8 --out FOLDER [--model models/smollm2]
    python scripts/gpu_day.py --rehearse --out FOLDER        all of it small, on a CPU
    python scripts/gpu_day.py --bundle FOLDER --size 64MiB   what a bare machine lacks, in pieces of at most that size
    python scripts/gpu_day.py --install FOLDER               there: join the pieces, install what they hold

Each part is a program of its own with a share of the time; time that one leaves goes to the next. A result stands in
FOLDER/PART.jsonl as soon as it is measured, and FOLDER/table.md is written anew after every part. A part that fails, or
is cut at its limit, does not stop the rest. Exits with 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import bundle

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "transformers", "trl", "verl", "liger-kernel", "cut-cross-entropy", "entrostat")
LONGEST_LIST = 6


@dataclass(frozen=True)
class Part:
    """A program, what it is asked on the device and in a rehearsal, and its share of the time."""

    name: str
    title: str
    share: float
    program: str
    arguments: tuple[str, ...] = ()
    rehearsal: tuple[str, ...] = ("--rehearse",)

    def command(self, rehearse: bool, limit: float, model: Path | None) -> list[str]:
        """The command line; `learning` is told its time, so that both of its runs get their half."""
        words = [
            sys.executable,
            "-W",
            "ignore",
            str(ROOT / self.program),
            *(self.rehearsal if rehearse else self.arguments),
        ]
        if self.name == "learning":
            words += ["--seconds", str(int(limit * 0.9)), *(["--model", str(model)] if model else [])]
        return words


PARTS = (
    Part("rates", "What the device can do", 1, "benchmarks/gpu/rates.py"),
    Part("kernels", "The Triton kernels against float64", 3, "benchmarks/gpu/kernels.py"),
    Part(
        "statistics",
        "Statistics of every token: time and peak memory beside other methods",
        6,
        "benchmarks/token_stats/run.py",
        ("table",),
        ("table", "entrostat fused", "materialised", "--size", "16", "32", "300"),
    ),
    Part("engine", "A step of the engine: the cost of control, packed rows", 4, "benchmarks/gpu/step.py"),
    Part(
        "trl",
        "A step of TRL's trainer with and without entrostat",
        3,
        "benchmarks/trl/overhead.py",
        (
            "--steps",
            "20",
            "--rows",
            "16",
            "--prompt",
            "128",
            "--length",
            "256",
            "--dtype",
            "bf16",
            "--model",
            "qwen2.5-0.5b",
        ),
        ("--steps", "2", "--rows", "2", "--prompt", "4", "--length", "6", "--model", "tiny"),
    ),
    Part("learning", "GRPO with and without the thermostat", 6, "benchmarks/gpu/learning.py"),
    Part("grading", "Gradings per second", 2, "benchmarks/gpu/grading.py"),
)


@dataclass
class Outcome:
    """How a part ended and what it had said by then."""

    part: Part
    status: str
    seconds: float
    results: list[dict[str, Any]]


def machine() -> dict[str, Any]:
    """Device, driver, processor and versions."""
    import torch

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    found: dict[str, Any] = {
        "device": "cpu",
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        found |= {"device": properties.name, "memory_MB": properties.total_memory // 10**6, "driver": driver}
        found |= {"capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda}
    return found | {name: version(name) for name in PACKAGES}


def perform(part: Part, command: list[str], limit: float, out: Path) -> Outcome:
    """Run a part for at most `limit` seconds; its lines of JSON are kept as they come, the rest in its log."""
    print(f"\n== {part.title} (at most {limit:.0f} s)", flush=True)
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    begun = time.monotonic()
    with (out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
        timer = threading.Timer(limit, _end, [process])
        timer.start()
        try:
            results = list(_results(process.stdout, out / f"{part.name}.jsonl", log))
            code = process.wait()
        finally:
            timer.cancel()
            _end(process)
    seconds = time.monotonic() - begun
    status = "ended" if code == 0 else _failure(code, seconds >= limit, out / f"{part.name}.log")
    if status == "ended" and any(result.get("ok") is False for result in results):
        status = "failed: a result is not right"
    print(f"   {status}, {len(results)} results, {seconds:.0f} s", flush=True)
    return Outcome(part, status, round(seconds, 1), results)


def _results(said: IO[str] | None, path: Path, log: IO[str]) -> Iterator[dict[str, Any]]:
    assert said is not None
    with path.open("w") as file:
        for line in said:
            try:
                result = json.loads(line)
            except ValueError:
                result = None
            if not isinstance(result, dict):
                log.write(line)
                continue
            file.write(line)
            file.flush()
            print("   " + ", ".join(f"{name} {_short(value)}" for name, value in result.items())[:150], flush=True)
            yield result


def _failure(code: int, cut: bool, log: Path) -> str:
    if cut:
        return "cut at its time limit"
    last = (log.read_text().strip().splitlines() or [f"exit status {code}"])[-1]
    return f"left out: {last}" if last.startswith("ModuleNotFoundError") else f"failed: {last[:200]}"


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a part with all the processes of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def table(about: dict[str, Any], outcomes: list[Outcome]) -> str:
    """All results in Markdown."""
    lines = ["# A GPU day", "", ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)]
    for outcome in outcomes:
        lines += ["", f"## {outcome.part.title}", "", f"{outcome.status}; {outcome.seconds} s", ""]
        names = list(dict.fromkeys(name for result in outcome.results for name in result))
        if names:
            lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        for result in outcome.results:
            lines.append("| " + " | ".join(_short(result.get(name, "")) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    """A value for people: four digits, the head of a long list."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        head = " ".join(_short(item) for item in value[:LONGEST_LIST])
        return head + (f" ... ({len(value)})" if len(value) > LONGEST_LIST else "")
    return str(value).replace("|", "/").replace("\n", " ")


def day(args: argparse.Namespace) -> int:
    """Run the parts; return how many failed."""
    args.out.mkdir(parents=True, exist_ok=True)
    about = machine()
    (args.out / "machine.json").write_text(json.dumps(about, indent=1) + "\n")
    print(", ".join(f"{name} {value}" for name, value in about.items() if value is not None), flush=True)
    if about["device"] == "cpu" and not args.rehearse:
        raise SystemExit("torch sees no GPU here; --rehearse tries everything small, on the CPU")
    ends = time.monotonic() + 60 * args.minutes
    wanted = [part for part in PARTS if not args.only or part.name in args.only]
    outcomes: list[Outcome] = []
    for number, part in enumerate(wanted):
        left = ends - time.monotonic()
        limit = left * part.share / sum(later.share for later in wanted[number:])
        if limit < 1:
            outcomes.append(Outcome(part, "left out: no time", 0.0, []))
        else:
            outcomes.append(perform(part, part.command(args.rehearse, limit, args.model), limit, args.out))
        (args.out / "table.md").write_text(table(about, outcomes))
    print(f"\n{args.out / 'table.md'}")
    return sum(outcome.status.startswith("failed") for outcome in outcomes)


def mebibytes(text: str) -> int:
    """Bytes of a size such as 64MiB. ValueError: it is not of this form, or not positive."""
    count = float(text.removesuffix("MiB"))
    if not 0 < count < 2**20:
        raise ValueError(f"got {text}")
    return int(count * 2**20)


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    parser.add_argument("--model", type=Path, help="folder of a real model, for the part `learning`")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER")
    parser.add_argument("--size", type=mebibytes, default="64MiB", help="the largest piece of the bundle, as 64MiB")
    parser.add_argument("--python", default="3.12", help="the bare machine's Python")
    parser.add_argument("--install", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.bundle:
        bundle.make(args.bundle, args.size, args.python)
    elif args.install:
        bundle.install(args.install)
    elif args.out:
        sys.exit(bool(day(args)))
    else:
        parser.error("one of --out, --bundle and --install is needed")


if __name__ == "__main__":
    main()
