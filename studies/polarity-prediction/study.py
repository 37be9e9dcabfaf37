"""Predicted against measured change of entropy per step."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from common import Condition, Study, cell, main, with_committed, write_csv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from entrostat.control import FlowCalibration
from entrostat.runs import Run

HERE = Path(__file__).parent
RECIPES = Path("recipes/polarity")
SKIP = 4  # steps before which no calibration has spoken

STUDY = Study(
    "polarity-prediction",
    {
        "on-policy": Condition(RECIPES / "on-policy.yaml", ["campaign.steps=32"]),
        "four passes, 2e-4": Condition(
            RECIPES / "grpo.yaml", ["control.first_order=true", "update.learning_rate=2e-4"]
        ),
        "SmolLM2-135M": Condition(RECIPES / "smollm2.yaml"),
    },
    common=("tasks.select=2", "tasks.report=4", "evaluation.every=100", "grading.workers=1"),
)

BRANCHES = Study(
    "polarity-branches", {name: Condition(RECIPES) for name in ("both", "expanding only", "contracting only")}
)

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
    """What each predictor said of every step, nan where it said nothing; a calibration speaks before it hears."""
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


def read() -> None:
    """Write results.csv, steps.csv.gz and figure.png; print a row a condition and predictor."""
    rows, points = [], {}
    for condition, runs in conditions().items():
        for run in runs:
            steps = run.steps()
            change = _column(steps, "measured_change")
            said = predictions(steps, tuple(run.recipe["update"]["betas"]))
            points.setdefault(condition, []).append((said, change))
            for predictor, values in said.items():
                seen = np.isfinite(values) & (np.arange(len(values)) >= SKIP)
                rows.append(
                    {
                        "condition": condition,
                        "seed": run.seed,
                        "predictor": predictor,
                        "steps": int(seen.sum()),
                        "correlation": float(np.corrcoef(values[seen], change[seen])[0, 1]),
                        "sign_agreement": float(np.mean(np.sign(values[seen]) == np.sign(change[seen]))),
                        "rms_error": float(np.sqrt(np.mean((values[seen] - change[seen]) ** 2))),
                        "rms_change": float(np.sqrt(np.mean(change[seen] ** 2))),
                    }
                )
    rows = with_committed(rows, HERE / "results.csv", ("condition", "seed"))
    write_csv(HERE / "results.csv", rows)
    for condition in (*STUDY.conditions, *BRANCHES.conditions):
        for predictor in PREDICTORS:
            own = [row for row in rows if (row["condition"], row["predictor"]) == (condition, predictor)]
            if own:
                cells = [cell([row[field] for row in own]) for field in ("correlation", "sign_agreement")]
                print(f"{condition:<20} n={len(own)} {predictor:<42} correlation {cells[0]}  sign {cells[1]}")
    for name in ("flow", "flow without C", "flow by the surprisal rule"):
        branches = [(s[name], c) for k in ("both", "expanding only", "contracting only") for s, c in points.get(k, [])]
        if branches:
            x, y = (np.concatenate(part) for part in zip(*branches, strict=True))
            print(f"steps of the three branch runs together, {len(x)}: {name} {np.corrcoef(x, y)[0, 1]:.2f}")
    if all(points.get(condition) for condition in (*STUDY.conditions, *BRANCHES.conditions)):
        draw(points)


def conditions() -> dict[str, list[Run]]:
    """The study's own runs, and those of the branch study."""
    own = {condition: list(STUDY.finished(condition)) for condition in STUDY.conditions}
    return own | {condition: list(BRANCHES.finished(condition)) for condition in BRANCHES.conditions}


def draw(points: Mapping[str, Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]]]) -> None:
    """Measured change against what announced it, a dot a step: flow, first order in the weights, flow of a branch."""
    figure = Figure(figsize=(10, 8.6), layout="constrained")
    own, branches = list(STUDY.conditions), list(BRANCHES.conditions)
    panels = (
        [(c, "flow") for c in own] + [(c, "first order in the weights") for c in own] + [(c, "flow") for c in branches]
    )
    for axis, (condition, predictor) in zip(figure.subplots(3, 3).flat, panels, strict=True):
        scale, unit = (1e6, "learning rate x flow, $10^{-6}$") if predictor == "flow" else (1.0, f"{predictor}, nats")
        for said, change in points.get(condition, ()):
            axis.scatter(scale * said[predictor], change, s=8, color="#0072b2", alpha=0.5, linewidths=0)
        axis.axhline(0, color="#999", linewidth=0.6)
        axis.axvline(0, color="#999", linewidth=0.6)
        axis.set_xlabel(unit, fontsize=8)
        axis.set_title(condition, fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.locator_params(nbins=5)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supylabel("measured change of entropy, nats", fontsize=9)
    FigureCanvasAgg(figure).print_figure(HERE / "figure.png", dpi=150)


if __name__ == "__main__":
    main(STUDY, read)
