"""Kill a study at random moments, dozens of times, and compare its tables with those of an undisturbed one.

python benchmarks/chains/kills.py [--kills 50] [--seed 0] [--workers 2] [--out kills.json]

Each kill is a SIGKILL of the command itself or of one of its chains' processes, at a moment drawn at random. Equal must
be every row of every table but timings and the folder's name.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from entrostat.campaign.database import TABLES, read_results

STUDY = {
    "name": "kills",
    "seeds": [0, 1],
    "campaigns": 4,
    "base": {
        "threads": 1,
        "tasks": {"train": 8, "select": 6, "report": 6, "ood": 2},
        "rollout": {"prompts": 4, "samples": 4},
        "update": {"advantage": "reinforce", "baseline": "ema", "objective": "reinforce", "learning_rate": 2.0e-3},
        "evaluation": {"samples": 2, "pass_at": [1, 2], "report": "peak"},
        "campaign": {"steps": 8, "checkpoint_every": 1},
        "grading": {"workers": 1},
    },
    "methods": {
        "naive": {"campaign.optimizer": "carried"},
        "es-budget": {"campaign.controller": "es-budget"},
        "care": {"campaign.controller": {"name": "care", "pilot": 4}},
        "crest": {
            "evaluation.every": None,
            "campaign.controller": {"name": "crest", "votes": 1, "log_ratio": -0.01, "spacing": 2, "block": 3},
        },
        "kl-adaptive": {"update.kl": {"kind": "adaptive", "target": 0.001}},
        "fisher-ewc": {"update.kl": {"kind": "fisher", "fisher_samples": 8}},
    },
}


def tables(out: Path) -> dict[str, list[dict]]:
    return {
        table: [{k: v for k, v in row.items() if k not in ("seconds", "path")} for row in read_results(out, table)]
        for table in TABLES
    }


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wait", type=float, nargs=2, default=(4.0, 14.0), help="seconds from start to kill")
    parser.add_argument("--out", type=Path, default=Path("kills.json"))
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / "kills.yaml"
        recipe.write_text(yaml.safe_dump(STUDY))

        def command(name: str) -> list[str]:
            workers = ("--workers", str(args.workers))
            return [sys.executable, "-m", "entrostat", "chain", str(recipe), "--out", f"{scratch}/{name}", *workers]

        started = time.monotonic()
        subprocess.run(command("whole"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole_seconds = time.monotonic() - started
        killed = {"command": 0, "chain": 0}
        started = time.monotonic()
        while sum(killed.values()) < args.kills:
            process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(moments.uniform(*args.wait))
                print("the study ended before the last kill", file=sys.stderr)
                break
            except subprocess.TimeoutExpired:
                pass
            chains = children(process.pid)
            if chains and moments.random() < 0.5:
                os.kill(moments.choice(chains), signal.SIGKILL)
                killed["chain"] += 1
                time.sleep(moments.uniform(0, 1))
            else:
                killed["command"] += 1
            process.kill()
            process.wait()
        subprocess.run(command("killed"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        one, other = tables(Path(scratch) / "whole"), tables(Path(scratch) / "killed")
        result = {
            "kills": killed,
            "tables_equal": one == other,
            "rows": {table: len(rows) for table, rows in one.items()},
            "seconds_undisturbed": round(whole_seconds, 1),
            "seconds_with_kills": round(time.monotonic() - started, 1),
        }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(0 if result["tables_equal"] else 1)


if __name__ == "__main__":
    main()
