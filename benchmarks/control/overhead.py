"""What control costs an optimizer step of the embedded engine: controller, bounds and weights, as a share of the step.

    python benchmarks/control/overhead.py --steps 60 --csv benchmarks/control/overhead.csv

The calls of the controller and of the clip rule are timed inside real steps, on the same rollout batch, in CPU seconds
of the thread, so that other work on the machine does not count; the interval is a 95 % bootstrap interval over steps of
the ratio of sums. The embedded policy is the hardest case: control costs the same a token whatever the model's size.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.update import Experience, Learner
from entrostat.objective import ClipRule
from entrostat.recipe import build_controller, parse_recipe
from entrostat.tasks import listcraft

CURVE = {"points": [[0, 0.28], [1, 0.1]]}
CONTROLS: dict[str, dict[str, Any]] = {
    "constant band": {"strategy": "constant"},
    "ID": {"strategy": "id"},
    "TargetEntropy": {"strategy": {"name": "target-entropy", "curve": CURVE}},
    "TargetEntropy, polarity-aware weights": {
        "strategy": {"name": "target-entropy", "curve": CURVE},
        "reweighting": "polarity-aware",
    },
    "target-weights": {"reweighting": {"name": "target-weights", "curve": CURVE}},
    "target-weights, by logp": {"reweighting": {"name": "target-weights", "curve": CURVE, "by": "logp"}},
    "ID, Clip-Cov": {"strategy": "id", "reweighting": "clip-cov"},
    "adaptive bonus": {"bonus": {"name": "adaptive", "target": 0.3}},
}


class Stopwatch:
    """CPU seconds spent in the calls it wraps, a lap a step."""

    def __init__(self) -> None:
        self.lap, self.depth = 0.0, 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, timed; a call within a timed call is not counted twice."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            started = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.lap += time.thread_time() - started

        return timed


def measure(control: dict[str, Any], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """CPU seconds of control and of the whole, for each step."""
    recipe = parse_recipe({"name": "overhead", "update": {"epochs": 8}, "control": control})
    policy, watch = load_policy(), Stopwatch()
    controller = build_controller(recipe)
    for name in ("observe", "rule", "advantages", "entropy_coef"):
        setattr(controller, name, watch.around(getattr(controller, name)))
    learner = Learner(policy, recipe, controller)
    prompts = [task.prompt for task in listcraft.tasks("train", 8)]
    batch = Experience(sample(policy, prompts, Sampling(8, 48), seed=0), torch.randn(64))
    laps, wholes = [], []
    bounds = ClipRule.bounds
    ClipRule.bounds = watch.around(bounds)  # type: ignore[method-assign]
    try:
        for number in range(1, steps + 4):
            watch.lap, started = 0.0, time.thread_time()
            learner.step(number, batch)
            wholes.append(time.thread_time() - started)
            laps.append(watch.lap)
    finally:
        ClipRule.bounds = bounds  # type: ignore[method-assign]
    return np.array(laps[3:]), np.array(wholes[3:])


def main() -> None:
    """Write a row per control, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--csv", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with args.csv.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("control", "steps", "step_ms", "control_ms", "share", "low", "high"))
        for name, control in CONTROLS.items():
            laps, wholes = measure(control, args.steps)
            draws = np.random.default_rng(0).integers(0, args.steps, (2000, args.steps))
            low, high = np.percentile(laps[draws].sum(1) / wholes[draws].sum(1), [2.5, 97.5])
            found = (1e3 * wholes.mean(), 1e3 * laps.mean(), laps.sum() / wholes.sum(), low, high)
            row = (name, args.steps, *(f"{value:.4g}" for value in found))
            writer.writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    main()
