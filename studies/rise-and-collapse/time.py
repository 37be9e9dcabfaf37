"""How the wall time of a study divides: python studies/rise-and-collapse/time.py runs/rise-and-collapse."""

import sys
from collections import Counter
from pathlib import Path

from entrostat.campaign.database import read_results
from entrostat.runs import Run


def main(study: Path) -> None:
    """Print the measured seconds and shares of rollout, grading, update and evaluation, over all finished campaigns."""
    parts: Counter[str] = Counter()
    for chain in read_results(study, "chains"):
        for campaign in range(chain["campaigns_done"]):
            run = Run.open(study / chain["method"] / f"seed-{chain['seed']}" / f"campaign-{campaign:02}")
            for line in run.steps():
                parts.update(line["seconds"])
            for split in ("select", "report", "ood"):
                parts["evaluation"] += sum(line["seconds"] for line in run.evals(split))
    whole = sum(parts.values())
    for part, seconds in parts.most_common():
        print(f"{part:<12} {seconds:7.0f} s  {seconds / whole:4.0%}")
    print(f"{'all':<12} {whole:7.0f} s, without loading and writing checkpoints")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
