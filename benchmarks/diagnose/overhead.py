"""What watching costs inside a real run: the watchdog's seconds as a share of the training step's.

python benchmarks/diagnose/overhead.py embedded     # the demo's GRPO under ID, watched and not, in turn; 2 minutes
python benchmarks/diagnose/overhead.py trl          # TRL's GRPOTrainer on the same policy; needs `trl`; 2 minutes

Timed is all that a watched run does and another does not: reading the lines, the detectors, noting what they find. The
CPU time of the whole run, watched and not, stands beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "overhead.csv"


@dataclass
class Clock:
    """Wall and CPU seconds of this thread spent in what it is put around."""

    seconds: float = 0.0
    cpu: float = 0.0
    longest: float = 0.0
    depth: int = field(default=0, repr=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        began, worked, self.depth = time.perf_counter(), time.thread_time(), self.depth + 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                taken = time.perf_counter() - began
                self.seconds, self.longest = self.seconds + taken, max(self.longest, taken)
                self.cpu += time.thread_time() - worked


def embedded(watched: bool, steps: int) -> dict[str, Any]:
    from importlib import resources

    from entrostat.engine import train as training
    from entrostat.engine.watchdog import Watched
    from entrostat.recipe import load_recipe
    from entrostat.runs import Run

    clock = Clock()

    class Timed(Watched):
        def _look(self, *lines: Any) -> None:
            with clock.running():
                super()._look(*lines)

    training.Watched = Timed  # type: ignore[misc]
    asset = resources.files("entrostat.assets") / "demo" / "grpo-id.yaml"
    recipe = load_recipe(Path(str(asset)), [f"campaign.steps={steps}", *(["watch.action=note"] if watched else [])])
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        training.train(recipe, Path(folder) / "run")
        whole = time.process_time() - began
        lines = Run.open(Path(folder) / "run").steps()
    step = sum(sum(line["seconds"].values()) for line in lines)
    return row("embedded", watched, len(lines), step, whole, clock)


def trl(watched: bool, steps: int) -> dict[str, Any]:
    from trl_runs import run

    from entrostat.integrations.trl.watchdog import WatchdogCallback

    clock = Clock()

    class Timed(WatchdogCallback):  # type: ignore[misc]
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            with clock.running():
                super().on_log(*args, **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        began = time.process_time()
        run("healthy", 0, state, steps, Timed("note") if watched else None)
        whole = time.process_time() - began
        history = json.loads(state.read_text())["log_history"]
    seconds = [line["step_time"] for line in history if "step_time" in line]
    return row("trl", watched, len(seconds), sum(seconds), whole, clock)


def row(host: str, watched: bool, steps: int, step: float, whole: float, clock: Clock) -> dict[str, Any]:
    return {
        "host": host,
        "watched": watched,
        "steps": steps,
        "step_seconds": round(step / steps, 4),
        "run_cpu_seconds": round(whole, 1),
        "watch_ms_a_step": round(1e3 * clock.seconds / steps, 3),
        "watch_cpu_ms_a_step": round(1e3 * clock.cpu / steps, 3),
        "watch_ms_longest": round(1e3 * clock.longest, 2),
        "watch_share": round(clock.seconds / step, 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", choices=["embedded", "trl"])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=1)
    chosen = parser.parse_args()
    measure = {"embedded": embedded, "trl": trl}[chosen.host]
    rows = []
    for _ in range(chosen.repeats):
        for watched in (False, True):
            rows.append(measure(watched, chosen.steps))
            print(rows[-1], flush=True)
    seen = [each for each in rows if each["watched"]]
    print(
        f"{chosen.host}: {statistics.fmean(each['watch_ms_a_step'] for each in seen):.2f} ms a step of "
        f"{statistics.fmean(each['step_seconds'] for each in rows):.2f} s, "
        f"{statistics.fmean(each['watch_share'] for each in seen):.3%} of it"
    )
    others = list(csv.DictReader(OUT.open())) if OUT.exists() else []
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*(each for each in others if each["host"] != chosen.host), *rows])


if __name__ == "__main__":
    main()
