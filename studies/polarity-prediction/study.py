"""Predicted against measured change of entropy per step."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")

STUDY = Study(
    "polarity-prediction",
    {
        "on-policy": Condition(RECIPES / "on-policy.yaml"),
        "four passes, 2e-4": Condition(RECIPES / "grpo.yaml", ["control.first_order=true", "update.learning_rate=2e-4"]),
    },
    common=("tasks.select=8", "grading.workers=1"),
)


def read() -> None:
    """Write results.csv and figure.png."""


if __name__ == "__main__":
    main(STUDY, read)
