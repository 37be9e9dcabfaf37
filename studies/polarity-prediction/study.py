"""Predicted against measured change of entropy per step."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from common import Condition, Study, main
from matplotlib.figure import Figure
from tables import add_rows, cell, dots, draw, fill, read_rows, table

from entrostat.control import FlowCalibration
from entrostat.runs import Run

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")
SGD = "on-policy, SGD"  # without momentum: the step is the gradient's
SKIP = 4  # steps before which no calibration has spoken

STUDY = Study(
    "polarity-prediction",
    {
        "on-policy": Condition(RECIPES / "on-policy.yaml", ["tasks.seed=0", "campaign.steps=32"]),
        SGD: Condition(
            RECIPES / "on-policy.yaml",
            ["campaign.steps=32", "update.optimizer=sgd", "update.learning_rate=0.3", "update.warmup_steps=0"],
        ),
        "four passes, 2e-4": Condition(
            RECIPES / "grpo.yaml", ["tasks.seed=0", "control.first_order=true", "update.learning_rate=2e-4"]
        ),
        "SmolLM2-135M": Condition(RECIPES / "smollm2.yaml"),
    },
    common=("tasks.select=2", "tasks.report=4", "evaluation.every=100", "grading.workers=1"),
)

BRANCHES = Study(
    "polarity-branches", {name: Condition(RECIPES) for name in ("both", "expanding only", "contracting only")}
)

CONDITIONS = [*STUDY.conditions, *BRANCHES.conditions]
PREDICTORS = (
    "flow",
    "flow without C",
    "flow by the surprisal rule",
    "flow, calibrated",
    "flow and its moving average, calibrated",
    "last change",
    "first order in the weights",
    "first order, calibrated",
)


def predictions(steps: Sequence[Mapping[str, Any]], betas: tuple[float, float]) -> dict[str, np.ndarray]:
    """What each predictor said of every step, nan where it said nothing; a calibration predicts before it learns."""
    lr, change = _column(steps, "lr"), _column(steps, "measured_change")
    by_rule = {rule: lr * [step["flow_by_rule"][rule] for step in steps] for rule in steps[0]["flow_by_rule"]}
    flow = by_rule["exact"]
    adam = lr * _average(flow / lr, betas[0]) / np.sqrt(_average(_column(steps, "grad_norm") ** 2, betas[1]))
    found = {
        "flow": flow,
        "flow without C": by_rule["token_only"],
        "flow by the surprisal rule": by_rule["surprisal"],
        "flow, calibrated": _online([flow], change),
        "flow and its moving average, calibrated": _online([flow, adam], change),
        "last change": np.concatenate([[np.nan], change[:-1]]),
    }
    if "first_order_change" in steps[0]:
        weights = _column(steps, "first_order_change")
        found |= {"first order in the weights": weights, "first order, calibrated": _online([weights], change)}
    return found


def _column(steps: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([step[name] for step in steps], dtype=float)


def _average(values: np.ndarray, beta: float) -> np.ndarray:
    """Adam's bias-corrected moving average."""
    weights = beta ** np.arange(len(values))
    return np.array([weights[i::-1] @ values[: i + 1] / weights[: i + 1].sum() for i in range(len(values))])


def _online(features: Sequence[np.ndarray], change: np.ndarray) -> np.ndarray:
    calibration, said = FlowCalibration(features=len(features)), []
    for row, measured in zip(np.transpose(features), change, strict=True):
        prediction = calibration.predict(row.tolist())
        said.append(np.nan if prediction is None else prediction.change)
        calibration.observe(row.tolist(), float(measured))
    return np.array(said)


def collect() -> None:
    """Add finished runs to results.csv: a row per run and predictor."""
    rows = [row for condition, runs in conditions().items() for run in runs for row in rows_of(condition, run)]
    add_rows(HERE / "results.csv", rows, ("condition", "seed", "predictor"), CONDITIONS)


def rows_of(condition: str, run: Run) -> list[dict[str, Any]]:
    """How well each predictor announced the measured changes of a run."""
    steps = run.steps()
    change = _column(steps, "measured_change")
    rows = []
    for predictor, values in predictions(steps, tuple(run.recipe["update"]["betas"])).items():
        seen = np.isfinite(values) & (np.arange(len(values)) >= SKIP)
        said, measured = values[seen], change[seen]
        rows.append(
            {
                "condition": condition,
                "seed": run.seed,
                "predictor": predictor,
                "steps": int(seen.sum()),
                "correlation": float(np.corrcoef(said, measured)[0, 1]),
                "sign_agreement": float(np.mean(np.sign(said) == np.sign(measured))),
                "rms_error": float(np.sqrt(np.mean((said - measured) ** 2))),
                "rms_change": float(np.sqrt(np.mean(measured**2))),
            }
        )
    return rows


def read() -> None:
    """The README's tables and figure.png, from results.csv."""
    rows = read_rows(HERE / "results.csv")
    n = {c: len({row["seed"] for row in rows if row["condition"] == c}) for c in CONDITIONS}

    def values(condition: str, predictor: str, field: str) -> list[float]:
        return [row[field] for row in rows if (row["condition"], row["predictor"]) == (condition, predictor)]

    def lines(field: str, least: float) -> list[list[str]]:
        own = ((predictor, [values(c, predictor, field) for c in CONDITIONS]) for predictor in PREDICTORS)
        return [
            [predictor, *(cell(found, 2, least, 1.0) if found else "-" for found in cells)] for predictor, cells in own
        ]

    head = [f"{condition} (n = {n[condition]})" for condition in CONDITIONS]
    tables = {
        "correlation": table(["correlation", *head], lines("correlation", -1.0)),
        "sign agreement": table(["sign agreement", *head], lines("sign_agreement", 0.0)),
    }
    fill(HERE / "README.md", tables)
    panels = {c: {predictor: values(c, predictor, "correlation") for predictor in PREDICTORS} for c in CONDITIONS}
    draw(HERE / "figure.png", panels, drawn)


def drawn(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The correlation of each predictor with the measured change, a panel per condition."""
    return dots(panels, width=1.7, zero=True)


def conditions() -> dict[str, list[Run]]:
    """The study's own runs, and those of the branch study."""
    own = {condition: list(STUDY.finished(condition)) for condition in STUDY.conditions}
    return own | {condition: list(BRANCHES.finished(condition)) for condition in BRANCHES.conditions}


if __name__ == "__main__":
    main(STUDY, read, collect)
