"""The entropy on a curve, up as well as down: error, pass@1, pass@k, distinct solutions and cost of every method."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from on_a_curve import drawn_courses, drawn_curve, error_on
from tables import add_rows, cell, contrast_table, contrasts, draw, fill, read_rows, summary, table, write_rows

from entrostat.report.style import BLUE, INK, MUTED
from entrostat.runs import mean_interval

HERE = Path(__file__).parent
FRONT = HERE.parents[1] / "docs" / "images" / "hold-the-entropy.png"  # README and the site begin with it
TABULAR = Path("recipes/thermostat/tabular.yaml")
STANDARD = "GRPO"
CURVES = {
    "constant": [[0, 1.0]],
    "falling": [[0, 1.15], [1, 0.3]],
    "steep": [[0, 1.15], [0.25, 0.35], [1, 0.35]],
    "up and down": [[0, 1.15], [0.35, 0.55], [0.65, 0.85], [1, 0.35]],
    "rise": [[0, 1.15], [0.35, 0.55], [1, 0.95]],
    "hold, let go": [[0, 1.15], [0.15, 0.8], [0.6, 0.8], [0.95, 0.1]],
}
LEVEL = 0.7  # pass@1 on the training tasks, for the steps that it takes
EVERY = 4  # steps between two points of a course


def on(curve: str) -> str:
    """A curve as a setting."""
    return json.dumps({"points": CURVES[curve]})


def weighted(curve: str, **settings: object) -> list[str]:
    """target-weights on a curve."""
    chosen = {"name": "target-weights", "curve": {"points": CURVES[curve]}, **settings}
    return [f"control.reweighting={json.dumps(chosen)}"]


NONE = ["control.reweighting=null"]


def without_weights(curve: str, kind: str, name: str, **settings: object) -> list[str]:
    """Another method with its target on a curve."""
    return [*NONE, f"control.{kind}={json.dumps({'name': name, 'target': {'points': CURVES[curve]}, **settings})}"]


def polarity_aware(curve: str, **settings: object) -> list[str]:
    """polarity-aware with the curve as its reference."""
    chosen = {"name": "polarity-aware", "strength": 0.9, "reference": {"points": CURVES[curve]}, **settings}
    return [f"control.reweighting={json.dumps(chosen)}"]


# Every method is tuned on three values of one setting, by its error on "up and down" over the seeds TUNING.
METHODS: dict[str, tuple[Callable[..., list[str]], str, tuple[float, ...]]] = {
    "target-weights": (weighted, "strength", (0.5, 0.7, 0.9)),
    "rewarded only": (partial(weighted, punished=0), "strength", (0.5, 0.7, 0.9)),
    "polarity-aware": (polarity_aware, "scale", (0.1, 0.2, 0.4)),
    "adaptive bonus": (partial(without_weights, kind="bonus", name="adaptive"), "delta", (0.005, 0.02, 0.05)),
    "EntroPIC's balance": (partial(without_weights, kind="reweighting", name="entropic-weights"), "kp", (1, 3, 10)),
    "REPO-R": (partial(without_weights, kind="reweighting", name="repo-r"), "most", (0.05, 0.2, 0.8)),
    "ADAPO": (partial(without_weights, kind="strategy", name="adapo"), "factor", (1.05, 1.1, 1.3)),
    "MAI": (partial(without_weights, kind="strategy", name="mai"), "step", (0.05, 0.25, 1.0)),
}
TUNING = (901, 902)
TUNED_ON = "up and down"


def setting_of(method: str) -> float:
    """The value of the method's setting with the least mean error in tuning.csv; the last one before there is any."""
    values, table = METHODS[method][2], HERE / "tuning.csv"
    if not table.exists():
        return values[-1]
    rows = read_rows(table)
    errors = {
        value: [row["error"] for row in rows if (row["method"], row["value"]) == (method, value)] for value in values
    }
    return min((value for value in values if errors[value]), key=lambda value: fmean(errors[value]), default=values[-1])


def made(method: str, curve: str, value: float | None = None) -> list[str]:
    """A method on a curve, with its tuned setting or another value."""
    make, setting, _ = METHODS[method]
    return make(curve, **{setting: setting_of(method) if value is None else value})


REWARDED_ON = ("falling", "up and down", "hold, let go")  # the curves of its planned contrasts
WITHOUT_A_CURVE = {
    STANDARD: NONE,
    **{name: [*NONE, f"control.strategy={name.lower()}"] for name in ("clip-higher", "ID", "DID", "OD")},
}
TWO_PASSES = {
    **WITHOUT_A_CURVE,
    **{f"{method}, {curve}": made(method, curve) for method in METHODS for curve in CURVES},
    f"half on punished, {TUNED_ON}": [*made("target-weights", TUNED_ON), "control.reweighting.punished=0.5"],
}
CONDITIONS = {
    **TWO_PASSES,
    **{
        f"{name}, one pass": [*TWO_PASSES[name], "update.epochs=1"]
        for name in (STANDARD, *(f"{method}, {TUNED_ON}" for method in METHODS))
    },
}
TRIALS = {
    f"tuning {method} {value:g}": made(method, TUNED_ON, value) for method in METHODS for value in METHODS[method][2]
}


STUDY = MeasuredStudy(
    "thermostat", {name: Condition(TABULAR, settings) for name, settings in {**CONDITIONS, **TRIALS}.items()}
)


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    from entrostat.runs import Run

    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps, report = run.steps(), run.evals("report")[-1]
    course = [step["exact"]["token_entropy"] for step in steps]
    success = [step["exact"]["success"] for step in steps]
    measured = [step["entropy"] for step in steps]
    # a step's entropy is measured before its update, on the batch of the step; the exact one after it, on all tasks
    noise = fmean(abs(m / e - 1) for m, e in zip(measured[1:], course, strict=False))
    row = {
        "seed": run.seed,
        **{f"error_{name}": error_on(points, course) for name, points in CURVES.items()},
        "noise": noise,
        "entropy_end": course[-1],
        **{f"pass_{k}": report["pass_at"][str(k)] for k in (1, 4, 16)},
        "distinct": report["distinct"],
        "train_end": success[-1],
        "steps_to_level": next((k for k, s in enumerate(success, 1) if s >= LEVEL), len(success)),
        "seconds": json.loads((folder / "seconds.json").read_text()),
        "course": [round(h, 4) for h in course[EVERY - 1 :: EVERY]],
    }
    (folder / "row.json").write_text(json.dumps(row))


def tuned() -> list[dict[str, Any]]:
    """The errors of the measured trials."""
    rows = []
    for method, (_, setting, values) in METHODS.items():
        for value in values:
            for seed in TUNING:
                file = STUDY.folder(f"tuning {method} {value:g}", seed) / "row.json"
                if file.exists():
                    error = json.loads(file.read_text())[f"error_{TUNED_ON}"]
                    rows.append({"method": method, "setting": setting, "value": value, "seed": seed, "error": error})
    return rows


def collect() -> None:
    """Add the measured runs to results.csv and courses.csv.gz, and the trials to tuning.csv."""
    rows, courses = [], []
    for condition, measured in STUDY.measured().items():
        for row in measured if condition in CONDITIONS else ():
            course = row.pop("course")
            rows.append({"condition": condition, **row})
            points = [{"step": EVERY * (place + 1), "entropy": value} for place, value in enumerate(course)]
            courses += [{"condition": condition, "seed": row["seed"], **p} for p in points if condition in DRAWN]
    add_rows(HERE / "tuning.csv", tuned(), ("method", "value", "seed"), list(METHODS))
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(CONDITIONS))
    add_rows(HERE / "courses.csv.gz", courses, ("condition", "seed", "step"), list(DRAWN))


DRAWN = (STANDARD, *(f"target-weights, {curve}" for curve in CURVES))
GAINS = {"pass_1": "pass@1", "pass_16": "pass@16", "distinct": "distinct solutions"}
DIGITS = {"error": 3, "pass_1": 3, "pass_16": 3, "distinct": 3, "steps_to_level": 0, "train_end": 3}


def planned() -> list[tuple[str, str, str]]:
    """The contrasts that were planned before the runs, in one family."""
    ours = [(f"target-weights, {curve}", curve) for curve in CURVES]
    ours += [(f"rewarded only, {curve}", curve) for curve in REWARDED_ON]
    errors = [(condition, STANDARD, f"error_{curve}") for condition, curve in ours]
    gains = [(condition, STANDARD, field) for field in GAINS for condition, _ in ours]
    one_pass = [
        (f"target-weights, {TUNED_ON}, one pass", f"{STANDARD}, one pass", field)
        for field in (f"error_{TUNED_ON}", "pass_1")
    ]
    return [*errors, *gains, *one_pass]


def beside() -> list[tuple[str, str, str]]:
    """target-weights against each of the others: the error on every curve, pass@1 on the one that all were tuned on."""
    of_interest = [*((curve, f"error_{curve}") for curve in CURVES), (TUNED_ON, "pass_1")]
    others = [method for method in METHODS if method != "target-weights"]
    return [(f"target-weights, {curve}", f"{m}, {curve}", field) for curve, field in of_interest for m in others]


def read() -> None:
    """The contrasts, the README's tables and the figures, from the tables that `collect` writes."""
    rows = read_rows(HERE / "results.csv")
    main_family, others = contrasts(rows, planned()), contrasts(rows, beside())
    write_rows(HERE / "contrasts.csv", main_family)
    write_rows(HERE / "others.csv", others)
    fill(
        HERE / "README.md",
        {
            "errors": errors_table(rows),
            "ends": ends_table(rows),
            "contrasts": contrast_table(main_family),
            "others": contrast_table(others),
            "tuning": tuning_table(read_rows(HERE / "tuning.csv")),
            "cost": cost_table(rows),
        },
    )
    courses = read_rows(HERE / "courses.csv.gz")
    draw(HERE / "curves.png", courses, curves_drawn)
    fields = ("condition", "seed", *GAINS)
    shown = [{key: row[key] for key in fields} for row in rows]
    draw(FRONT, {"courses": courses, "rows": shown}, front_drawn)


def of(rows: Sequence[Mapping[str, Any]], condition: str, field: str) -> list[float]:
    """The values of a condition, by seed."""
    return [row[field] for row in rows if row["condition"] == condition]


def errors_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The error of every method on every curve it was run on, and of GRPO."""
    lines = []
    for passes in ("", ", one pass"):
        for method in (*WITHOUT_A_CURVE, "target-weights", "half on punished", *list(METHODS)[1:]):
            names = [method if method in WITHOUT_A_CURVE else f"{method}, {curve}" for curve in CURVES]
            found = [of(rows, name + passes, f"error_{curve}") for name, curve in zip(names, CURVES, strict=True)]
            sizes = sorted({len(values) for values in found if values})
            if sizes:
                n = " or ".join(map(str, sizes))
                lines.append((method + passes, n, *(cell(values, 3, 0) if values else "" for values in found)))
    return table(("method", "n", *CURVES), lines)


def ends_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The end of the run, and the steps to a given pass@1 on the training tasks."""
    fields = ("pass_1", "pass_16", "distinct", "train_end", "steps_to_level", "entropy_end")
    lines = []
    for condition in CONDITIONS:
        own = [row for row in rows if row["condition"] == condition]
        if own:
            lines.append((condition, len(own), *(summary(own, field, DIGITS.get(field, 3)) for field in fields)))
    head = ("", "n", "pass@1", "pass@16", "distinct", "pass@1, training", f"steps to {LEVEL:g} there", "entropy")
    return table(head, lines)


def tuning_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The mean error of each value that was tried, and the chosen one."""
    lines = []
    for method, (_, setting, values) in METHODS.items():
        tried = [[row["error"] for row in rows if (row["method"], row["value"]) == (method, value)] for value in values]
        chosen = setting_of(method)
        texts = [f"{value:g}: {fmean(found):.3f}" for value, found in zip(values, tried, strict=True) if found]
        lines.append((method, setting, ", ".join(texts), f"{chosen:g}"))
    return table(("method", "setting", "mean error of each value", "chosen"), lines)


def cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Batch noise, runs, and CPU time."""
    seconds = sum(row["seconds"] for row in rows)
    noise = [cell(of(rows, name, "noise"), 3, 0) for name in (STANDARD, f"target-weights, {TUNED_ON}")]
    head = ("batch noise, GRPO", "target-weights, up and down", "runs", "CPU seconds per run", "CPU minutes in all")
    return table(head, [(*noise, len(rows), f"{seconds / len(rows):.2f}", f"{seconds / 60:.0f}")])


def curves_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel per curve: the curve, the entropy on it, GRPO's."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots(2, len(CURVES) // 2, sharex=True, sharey=True).flat
    last = max(row["step"] for row in rows)
    for axis, curve in zip(axes, CURVES, strict=True):
        drawn_courses(axis, rows, STANDARD, MUTED, STANDARD)
        drawn_courses(axis, rows, f"target-weights, {curve}", BLUE, "target-weights")
        drawn_curve(axis, CURVES[curve], last)
        axis.set_title(curve)
        axis.grid(axis="y")
    axis.legend(loc="upper right", frameon=False)
    figure.supxlabel("optimizer step", fontsize=9)
    figure.supylabel("exact entropy, nats per token", fontsize=9)
    return figure


def front_drawn(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Above: one curve, the entropy that follows it, GRPO's. Below: what it costs and buys, by seed, against GRPO."""
    courses, rows = data["courses"], data["rows"]
    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.7, 1))
    axis = above.subplots()
    last = max(row["step"] for row in courses)
    drawn_courses(axis, courses, STANDARD, MUTED, STANDARD)
    drawn_courses(axis, courses, "target-weights, up and down", BLUE, "target-weights")
    drawn_curve(axis, CURVES["up and down"], last)
    axis.set_title("Entropy, nats per token: every seed (thin) and the mean")
    axis.set_xlabel("optimizer step")
    axis.set_xlim(0, last)
    axis.set_ylim(0)
    axis.grid(axis="y")
    axis.legend(loc="upper right", frameon=False)
    axes = below.subplots(1, len(GAINS), sharey=True)
    shown = {
        "hold, let go": "target-weights, hold, let go",
        "rewarded only": "rewarded only, up and down",
        "this curve": "target-weights, up and down",
    }
    for axis, (field, title) in zip(axes, GAINS.items(), strict=True):
        base = {row["seed"]: row[field] for row in rows if row["condition"] == STANDARD}
        for place, condition in enumerate(shown.values()):
            own = [row for row in rows if row["condition"] == condition and row["seed"] in base]
            values = [row[field] - base[row["seed"]] for row in own]
            found = mean_interval(values)
            axis.plot(values, [place] * len(values), "o", color=MUTED, markersize=3, alpha=0.6, linewidth=0)
            if found.low is not None:
                axis.plot([found.low, found.high], [place, place], color=BLUE, linewidth=1.6)
            axis.plot(found.mean, place, "o", color=BLUE, markersize=5)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.locator_params(axis="x", nbins=4)
        axis.set_yticks(range(len(shown)), list(shown))
        axis.set_ylim(-0.6, len(shown) - 0.4)
        axis.set_title(title)
        axis.grid(axis="x")
    below.supxlabel("minus GRPO's at the end of the run: every seed, mean and 95 % interval", fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
