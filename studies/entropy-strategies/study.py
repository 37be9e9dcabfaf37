"""Strategies of flexible entropy control beside their rivals: entropy, clip fractions, pass@k at middle and end."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, Study, main
from reading import collect, read_all

from entrostat.control import Curve
from entrostat.control.strategies import LOWER, UPPER
from entrostat.control.target import LOWERING, RAISING
from entrostat.objective import ClipRule, LinearThreshold

HERE = Path(__file__).parent
RECIPE = Path("recipes/flexible-entropy/embedded.yaml")
CURVES = {
    "constant": Curve.constant(0.22),
    "falling line": Curve.between(0.28, 0.13),
    "rise then fall": Curve(((0.0, 0.26), (0.33, 0.19), (0.67, 0.215), (1.0, 0.15))),
}


def strategy(name: str, **settings: object) -> Condition:
    """GRPO under a strategy of clip thresholds."""
    return Condition(RECIPE, [f"control.strategy={json.dumps({'name': name, **settings})}"])


def bonus(**settings: object) -> Condition:
    """GRPO with an entropy bonus in the loss."""
    return Condition(RECIPE, [f"control.bonus={json.dumps(settings)}"])


def on(curve: str) -> dict[str, object]:
    """A curve as a recipe gives it."""
    return {"points": CURVES[curve].points}


NARROW = LinearThreshold.constant(0.05)
PUBLISHED = {"raising": asdict(ClipRule(UPPER, NARROW)), "lowering": asdict(ClipRule(NARROW, LOWER))}
RIVALS = {
    "GRPO": Condition(RECIPE),
    "clip-higher": strategy("clip-higher"),
    "clip-lower": strategy("clip-lower"),
    "entropy bonus": bonus(name="constant", value=0.01),
    "Clip-Cov": Condition(RECIPE, ["control.reweighting=clip-cov"]),
    "GSPO": Condition(RECIPE, ["update.objective=gspo", "update.aggregate=sequence-mean", "control.strategy=null"]),
    "SAPO": Condition(RECIPE, ["update.objective=sapo", "update.aggregate=sequence-mean", "control.strategy=null"]),
    "ID": strategy("id"),
    "DID": strategy("did"),
    "OD": strategy("od"),
}
FOLLOWERS = {
    **{f"target, {curve}": strategy("target-entropy", curve=on(curve)) for curve in CURVES},
    "target by published thresholds, constant": strategy("target-entropy", curve=on("constant"), **PUBLISHED),
    **{f"adaptive bonus, {curve}": bonus(name="adaptive", target=on(curve)) for curve in CURVES},
}
SPLITS = {f"{name.upper()} {split}": strategy(name, split=split) for split in (0.3, 0.4, 0.6) for name in ("id", "did")}
HELD = {"standard": ClipRule.constant(), "raising": RAISING, "lowering": LOWERING}
REGIME = {
    f"{name}, decays {first} {second}": Condition(
        RECIPE,
        [
            f"control.strategy={json.dumps({'name': 'linear', **asdict(rule)})}",
            f"update.betas=[{first}, {second}]",
        ],
    )
    for first, second in ((0.9, 0.999), (0.0, 0.9))
    for name, rule in HELD.items()
}

STUDY = Study(
    "entropy-strategies",
    {**RIVALS, **FOLLOWERS, **SPLITS, **REGIME},
    common=("tasks.seed=0", "tasks.select=1", "tasks.report=16", "grading.workers=1"),
)


if __name__ == "__main__":
    main(
        STUDY,
        lambda: read_all(list(RIVALS), list(FOLLOWERS), list(SPLITS), list(REGIME), CURVES, HERE),
        lambda: collect(STUDY, CURVES, HERE),
    )
