"""Polarity-aware reweighting beside its rivals at equal compute: entropy, pass@1, pass@k, steps to a given pass@1."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main, measure_end

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")
GRPO = RECIPES / "grpo.yaml"


def weighted(name: str, **settings: object) -> Condition:
    """GRPO with a reweighting."""
    return Condition(GRPO, [f"control.reweighting={json.dumps({'name': name, **settings})}"])


STUDY = Study(
    "polarity-control",
    {
        "GRPO": Condition(GRPO),
        "polarity-aware": Condition(RECIPES / "polarity-aware.yaml"),
        "DAPO-style": Condition(GRPO, ["control.strategy=clip-higher"]),
        "entropy bonus": Condition(GRPO, ["control.bonus={name: constant, value: 0.01}"]),
        "80/20": weighted("80/20"),
        "OPEFO": weighted("opefo"),
        "STARE": weighted("stare"),
        "STEER": weighted("steer"),
        "EntroPIC": weighted("entropic", target=0.28),
    },
    common=("tasks.select=8", "grading.workers=1", "control.measure_change=false"),
)


def read() -> None:
    """Write results.csv and figure.png."""


if __name__ == "__main__":
    main(STUDY, read, measure_end)
