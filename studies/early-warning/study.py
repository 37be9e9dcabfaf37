"""Does a signal of the training steps announce a collapse? Runs with several causes, evaluated at every step."""

import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from announcing import MATCH, SOON, Course, auc_of, interval, threshold, transferred
from common import Condition, Study, main
from matplotlib.figure import Figure
from signals import signals, with_held
from tables import add_rows, draw, fill, read_rows, table, write_rows

from entrostat.report.style import BLUE, MUTED, ORANGE
from entrostat.runs import Run, Trajectory

HERE = Path(__file__).parent
FRONT = HERE.parents[1] / "docs" / "images" / "rise-and-fall.png"  # beside the demo in README
ON_FRONT = {
    "stale, +1/-1": "REINFORCE, a rate that climbs",
    "stale, GRPO clipped": "GRPO, clip .2, the same rate",
    "healthy: GRPO, ID": "GRPO under ID, a steady rate",
}
TABLE = HERE / "steps.csv.gz"
KEYS = ("condition", "seed", "step", "pass_at_1")
DEMO = Path(str(resources.files("entrostat.assets") / "demo"))
REINFORCE, GRPO_ID = DEMO / "reinforce.yaml", DEMO / "grpo-id.yaml"
RAMP = "update.warmup_steps=36"
GRPO = "update.advantage=grpo"
SHOWN = 14
TITLES = {"fall": "AUC of a fall within 3 steps", "matched": "the same, among steps equally far along their runs"}
RULE = ("entropy, rising", "share of mixed groups, low")
LEVELS = ("entropy, low", "entropy, high", "entropy, falling", "learning rate")
QUOTED = (
    "learning rate",
    "KL to the sampler, held",
    "KL to the sampler, against its past, held",
    "share outside .8-1.2, held",
    "lowest punished log-ratio, held",
    "net flow, expanding, held",
    "expanding share of the flow, held",
    "flow, highest token",
    "flow, rms of a token",
    "flow, lowest token",
    "share of E4",
    "share of E1, held",
    "entropy, low, held",
    "entropy, falling",
    "entropy, rising, held",
    "share of mixed groups, low",
    "train reward, falling, held",
    "reward variance, low",
    "gradient norm, against its past, held",
    "gradient norm against the first pass, held",
    "length, rising",
    "truncated",
)
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


def collect() -> None:
    """Add finished runs to steps.csv.gz: a row per step, pass@1 after it and every signal at it; none at step 0."""
    rows = [
        row for condition in STUDY.conditions for run in STUDY.finished(condition) for row in rows_of(condition, run)
    ]
    add_rows(TABLE, rows, KEYS[:3], list(STUDY.conditions), digits=5)


def rows_of(condition: str, run: Run) -> list[dict[str, Any]]:
    """The steps of a run as rows."""
    passed = Trajectory.from_evals(run.evals("report")).pass_at_1
    found = {name: values for name, values in signals(run.steps()).items() if not name.endswith(", held")}
    return [
        {
            "condition": condition,
            "seed": run.seed,
            "step": step,
            "pass_at_1": passed[step],
            **{name: float(values[step - 1]) if step else None for name, values in found.items()},
        }
        for step in range(len(passed))
    ]


def courses() -> list[Course]:
    """The runs of steps.csv.gz; where it has no step 0, pass@1 there stands as that of step 1."""
    rows, found = read_rows(TABLE), []
    for (condition, seed), group in groupby(rows, lambda row: (row["condition"], row["seed"])):
        lines = list(group)
        passed = [line["pass_at_1"] for line in lines]
        steps = [line for line in lines if line["step"] != 0]
        now = {name: np.array([line[name] for line in steps], dtype=float) for name in rows[0] if name not in KEYS}
        before = passed[: 1 + len(steps) - len(passed)]
        found.append(Course(condition, seed, np.array([*before, *passed], dtype=float), with_held(now)))
    return found


def read() -> None:
    """runs.csv, signals.csv, the README's tables and figure.png, from steps.csv.gz."""
    found = courses()
    write_rows(HERE / "runs.csv", [run_row(course) for course in found])
    rows = signal_rows(found)
    write_rows(HERE / "signals.csv", rows)
    of = {row["signal"]: row for row in rows}
    fill(
        HERE / "README.md",
        {
            "runs": runs_table(found),
            "signals": signals_table([of[name] for name in QUOTED]),
            "pair": pair_table(found),
        },
    )
    runs = [
        {
            "condition": course.condition,
            "fall": course.fall,
            "pass_at_1": [round(float(p), 4) for p in course.pass_at_1],
        }
        for course in found
    ]
    shown = [row for i, row in enumerate(read_rows(HERE / "signals.csv")) if i < SHOWN or row["signal"] in LEVELS]
    draw(HERE / "figure.png", {"runs": runs, "signals": shown}, drawn)
    draw(FRONT, [run for run in runs if run["condition"] in ON_FRONT], front_drawn)


def run_row(course: Course) -> dict[str, Any]:
    """A run's rise and fall."""
    peak, end = float(course.pass_at_1.max()), float(course.pass_at_1[-1])
    return {"condition": course.condition, "seed": course.seed, "peak": peak, "end": end, "fall_step": course.fall}


def signal_rows(found: list[Course]) -> list[dict[str, Any]]:
    """How well every signal announces a drop and a fall, the best first."""
    rows = []
    for signal in found[0].signals:
        value, low, high = interval(found, signal, "dropping")
        before, before_low, before_high = interval(found, signal, "falling")
        matched, matched_low, matched_high = interval(found, signal, "falling", MATCH)
        moved, strict = transferred(found, [signal]), transferred(found, [signal], rate=0.0)
        rows.append(
            {
                "signal": signal,
                "auc_drop": value,
                "drop_low": low,
                "drop_high": high,
                "auc_fall": before,
                "fall_low": before_low,
                "fall_high": before_high,
                "auc_matched": matched,
                "matched_low": matched_low,
                "matched_high": matched_high,
                **{f"auc_fall, {kind}": auc_of(own, signal, "falling") for kind, own in families(found).items()},
                **{
                    f"auc_matched, {kind}": auc_of(own, signal, "falling", MATCH)
                    for kind, own in families(found).items()
                },
                "threshold": threshold(found, signal),
                "falls": moved.falls,
                "caught": moved.caught,
                "median_lead": float(np.median(moved.leads)) if moved.leads else 0.0,
                "false_alarm_rate": moved.false_alarms / moved.safe_steps,
                "sound_runs": moved.sound_runs,
                "sound_runs_stopped": moved.false_runs,
                "strict_caught": strict.caught,
                "strict_median_lead": float(np.median(strict.leads)) if strict.leads else 0.0,
                "strict_sound_runs_stopped": strict.false_runs,
            }
        )
    return sorted(rows, key=lambda row: -row["auc_fall"])


def runs_table(found: Sequence[Course]) -> str:
    """How many runs of each condition fell."""
    own = {name: [course for course in found if course.condition == name] for name in STUDY.conditions}
    lines = [(name, len(runs), sum(course.fall is not None for course in runs)) for name, runs in own.items()]
    steps = [sum(int(getattr(course, name).sum()) for course in found) for name in ("dropping", "falling")]
    watched = sum(len(course.watched) for course in found)
    total = ("all", len(found), sum(course.fall is not None for course in found))
    said = f"{watched} steps are watched; a drop comes within {SOON} steps of {steps[0]} of them, a fall of {steps[1]}."
    return table(("condition", "runs", "fall"), [*lines, total]) + f"\n\n{said}"


def signals_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The signals that the README shows."""
    kinds = ("stale", "on-policy", "bonus")
    head = ("signal", "drop", "fall", "matched", *(f"{kind} (matched)" for kind in kinds))
    alarms = ("caught, lead", "sound stopped", "strict: caught, lead", "sound stopped")
    return table(
        (*head, *alarms),
        [
            (
                row["signal"],
                *(
                    f"{row[f'auc_{name}']:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
                    for name in ("drop", "fall", "matched")
                ),
                *(f"{row[f'auc_fall, {kind}']:.2f} ({row[f'auc_matched, {kind}']:.2f})" for kind in kinds),
                f"{row['caught']}, {row['median_lead']:.0f}",
                row["sound_runs_stopped"],
                f"{row['strict_caught']}, {row['strict_median_lead']:.0f}",
                row["strict_sound_runs_stopped"],
            )
            for row in rows
        ],
    )


def pair_table(found: list[Course]) -> str:
    """What strict thresholds on two signals together would have done."""
    moved = transferred(found, RULE, rate=0.0)
    line = (" and ".join(RULE), f"{moved.caught} of {moved.falls}", f"{moved.false_runs} of {moved.sound_runs}")
    return table(("strict thresholds on", "falls caught", "sound runs stopped"), [line])


def drawn(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """pass@1 of every run by condition (top), and the AUC of the best signals beside that of the entropy (bottom)."""
    figure = Figure(figsize=(13, 8.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    axes = above.subplots(2, len(STUDY.conditions) // 2, sharex=True, sharey=True)
    for axis, condition in zip(axes.flat, STUDY.conditions, strict=True):
        for run in (run for run in data["runs"] if run["condition"] == condition):
            axis.plot(run["pass_at_1"], color=BLUE, linewidth=1.1, alpha=0.75)
            if run["fall"] is not None:
                axis.plot(run["fall"], run["pass_at_1"][run["fall"]], "o", color=ORANGE, markersize=4)
        axis.set_title(condition)
        axis.set_ylim(0, 0.85)
    above.supylabel("pass@1, report split", fontsize=9)
    above.supxlabel("optimizer step", fontsize=9)
    shown = data["signals"]
    for axis, label in zip(below.subplots(1, 2, sharey=True), ("fall", "matched"), strict=True):
        for place, row in enumerate(reversed(shown)):
            colour = ORANGE if row["signal"] in LEVELS else BLUE
            axis.plot([row[f"{label}_low"], row[f"{label}_high"]], [place, place], color=colour, linewidth=1.5)
            axis.plot(row[f"auc_{label}"], place, "o", color=colour, markersize=5)
        axis.axvline(0.5, color=MUTED, linewidth=0.8)
        axis.set_yticks(range(len(shown)), [row["signal"] for row in reversed(shown)], fontsize=8)
        axis.set_title(TITLES[label])
        axis.set_xlim(0, 1)
    return figure


def front_drawn(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """pass@1 of every run of three conditions (thin) and their means; falls are marked."""
    figure = Figure(figsize=(8.6, 2.7), layout="constrained")
    axes = figure.subplots(1, len(ON_FRONT), sharex=True, sharey=True)
    for axis, (condition, title) in zip(axes, ON_FRONT.items(), strict=True):
        own = [run for run in runs if run["condition"] == condition]
        for run in own:
            axis.plot(run["pass_at_1"], color=BLUE, linewidth=0.7, alpha=0.6)
            if run["fall"] is not None:
                axis.plot(run["fall"], run["pass_at_1"][run["fall"]], "o", color=ORANGE, markersize=4)
        axis.plot(np.mean([run["pass_at_1"] for run in own], 0), color=BLUE, linewidth=2)
        axis.set_title(f"{title}, n = {len(own)}", fontsize=8.5)
        axis.set_ylim(0, 0.85)
        axis.grid(axis="y")
    axes[0].set_ylabel("pass@1, report split")
    figure.supxlabel("optimizer step", fontsize=9)
    return figure


def families(found: list[Course]) -> dict[str, list[Course]]:
    """The falling causes by kind, each with all sound runs."""
    sound = [course for course in found if course.fall is None]
    kinds = {"stale": "stale", "on-policy": "on-policy", "bonus": "entropy"}
    return {kind: sound + [c for c in found if c.fall and c.condition.startswith(word)] for kind, word in kinds.items()}


if __name__ == "__main__":
    main(STUDY, read, collect)
