"""Which branch of the polarity carries the learning: both, expanding tokens only, contracting tokens only."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main, measure_end

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")

STUDY = Study(
    "polarity-branches",
    {
        "both": Condition(RECIPES / "grpo.yaml"),
        "expanding only": Condition(RECIPES / "expanding-only.yaml"),
        "contracting only": Condition(RECIPES / "contracting-only.yaml"),
    },
    common=("tasks.select=8", "grading.workers=1"),
)


def read() -> None:
    """Write results.csv and figure.png."""


if __name__ == "__main__":
    main(STUDY, read, measure_end)
