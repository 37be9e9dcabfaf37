"""Does a signal of the training steps announce a collapse? Runs with several causes, evaluated at every step."""

import sys
from importlib import resources
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main

HERE = Path(__file__).parent
DEMO = Path(str(resources.files("entrostat.assets") / "demo"))
REINFORCE, GRPO_ID = DEMO / "reinforce.yaml", DEMO / "grpo-id.yaml"
RAMP = "update.warmup_steps=36"
GRPO = "update.advantage=grpo"
ON_POLICY = ("update.epochs=1", "campaign.checkpoint_every=40")

STUDY = Study(
    "early-warning",
    {
        "stale, +1/-1": Condition(REINFORCE, [RAMP]),
        "stale, minus the batch mean": Condition(REINFORCE, [RAMP, "update.baseline=batch-mean"]),
        "stale, GRPO unclipped": Condition(REINFORCE, [RAMP, GRPO]),
        "stale, GRPO clipped": Condition(REINFORCE, [RAMP, GRPO, "update.objective=clip"]),
        "on-policy, rate too high": Condition(
            REINFORCE, [RAMP, *ON_POLICY, "update.learning_rate=4e-3", "update.failure_reward=0"]
        ),
        "entropy bonus too strong": Condition(
            GRPO_ID,
            ["control.strategy=null", "update.warmup_steps=16", "control.bonus={name: constant, value: 0.15}"],
        ),
        "healthy: on-policy": Condition(REINFORCE, [RAMP, *ON_POLICY]),
        "healthy: GRPO, ID": Condition(GRPO_ID),
    },
    common=(
        *("rollout.prompts=8", "campaign.steps=36", "tasks.select=8", "grading.workers=1"),
        *("evaluation.samples=2", "evaluation.pass_at=[1, 2]"),
    ),
)


def read() -> None:
    """Write the per-step table, results.csv and figure.png."""


if __name__ == "__main__":
    main(STUDY, read)
