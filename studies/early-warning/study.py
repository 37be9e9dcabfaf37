"""Does a signal of the training steps announce a collapse? Runs with several causes, evaluated at every step."""

import csv
import gzip
import sys
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from announcing import Course, auc_matched, auc_of, interval, stopped, threshold, transferred
from common import Condition, Study, cell, main, write_csv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from signals import signals, with_held

from entrostat.runs import Trajectory

HERE = Path(__file__).parent
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


def courses() -> list[Course]:
    """All finished runs: those of run folders, and those that only steps.csv.gz still knows."""
    found = {(course.condition, course.seed): course for course in tabled()}
    for condition in STUDY.conditions:
        for run in STUDY.finished(condition):
            trajectory = Trajectory.from_evals(run.evals("report"))
            course = Course(condition, run.seed, np.array(trajectory.pass_at_1), signals(run.steps()))
            found[condition, run.seed] = course
    order = list(STUDY.conditions)
    return sorted(found.values(), key=lambda course: (order.index(course.condition), course.seed))


def tabled() -> list[Course]:
    """The runs of steps.csv.gz; where it has no step 0, pass@1 there stands as that of step 1."""
    if not TABLE.exists():
        return []
    with gzip.open(TABLE, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for (condition, seed), group in groupby(rows, lambda row: (row["condition"], int(row["seed"]))):
        lines = list(group)
        passed = [float(line["pass_at_1"]) for line in lines]
        steps = [line for line in lines if line["step"] != "0"]
        now = {name: np.array([float(line[name]) for line in steps]) for name in rows[0] if name not in KEYS}
        before = passed[: 1 + len(steps) - len(passed)]
        found.append(Course(condition, seed, np.array([*before, *passed]), with_held(now)))
    return found


def table(found: list[Course]) -> None:
    """Write steps.csv.gz: a row a step of a run, pass@1 after it and every signal at it; none at step 0."""
    names = [name for name in found[0].signals if not name.endswith(", held")]
    with gzip.open(TABLE, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*KEYS, *names])
        for course in found:
            for step, passed in enumerate(course.pass_at_1):
                row = [f"{course.signals[name][step - 1]:.5g}" if step else "" for name in names]
                writer.writerow([course.condition, course.seed, step, f"{passed:.4f}", *row])


def read() -> None:
    """Write steps.csv.gz, runs.csv, signals.csv and figure.png; print the best signals."""
    found = courses()
    table(found)
    write_csv(
        HERE / "runs.csv",
        [
            {
                "condition": course.condition,
                "seed": course.seed,
                "peak": float(course.pass_at_1.max()),
                "end": float(course.pass_at_1[-1]),
                "fall_step": course.fall if course.fall is not None else "",
            }
            for course in found
        ],
    )
    counts = {name: sum(int(getattr(course, name).sum()) for course in found) for name in ("dropping", "falling")}
    print(f"{len(found)} runs, {sum(c.fall is not None for c in found)} fall; watched steps", end=" ")
    print(sum(len(course.watched) for course in found), counts)
    rows, kinds = [], families(found)
    for signal in found[0].signals:
        value, low, high = interval(auc_of, found, signal, "dropping")
        before, before_low, before_high = interval(auc_of, found, signal, "falling")
        matched, matched_low, matched_high = interval(auc_matched, found, signal, "falling")
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
                    f"auc_matched, {kind}": auc_matched(own, signal, "falling") for kind, own in families(found).items()
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
    rows.sort(key=lambda row: -row["auc_fall"])
    write_csv(HERE / "signals.csv", rows)
    for row in rows:
        print(
            f"{row['signal']:<38} drop {row['auc_drop']:.2f} [{row['drop_low']:.2f}, {row['drop_high']:.2f}] "
            f"fall {row['auc_fall']:.2f} [{row['fall_low']:.2f}, {row['fall_high']:.2f}] "
            f"matched {row['auc_matched']:.2f} [{row['matched_low']:.2f}, {row['matched_high']:.2f}] "
            + " ".join(f"{row[f'auc_fall, {family}']:.2f}" for family in kinds)
            + f"  caught {row['caught']} of {row['falls']}, lead {row['median_lead']:.0f}, "
            f"false {row['false_alarm_rate']:.3f}, sound {row['sound_runs_stopped']} of {row['sound_runs']}; "
            f"strict {row['strict_caught']}, lead {row['strict_median_lead']:.0f}, {row['strict_sound_runs_stopped']}"
        )
    show_rule(found)
    draw(found, rows)


def show_rule(found: list[Course]) -> None:
    """Print what stopping at the first alarm of RULE leaves of pass@1, beside never stopping and the best step."""
    moved = transferred(found, RULE, rate=0.0)
    limits = {signal: round(threshold(found, signal, 0.0), 4) for signal in RULE}
    print(f"rule {limits}: caught {moved.caught} of {moved.falls}, leads {sorted(moved.leads)},", end=" ")
    print(f"sound runs stopped {moved.false_runs} of {moved.sound_runs}")
    for name, kept in (("falling", True), ("sound", False)):
        own = [(course, step) for course, step in stopped(found, RULE) if (course.fall is not None) == kept]
        values = {
            "stopped": [float(course.pass_at_1[step]) for course, step in own],
            "end": [float(course.pass_at_1[-1]) for course, _ in own],
            "peak": [float(course.pass_at_1.max()) for course, _ in own],
        }
        print(f"{name} runs, n={len(own)}:", *(f"{key} {cell(value)}" for key, value in values.items()))


def draw(found: list[Course], rows: list[dict[str, Any]]) -> None:
    """pass@1 of every run by condition (top), and the AUC of the best signals beside that of the entropy (bottom)."""
    figure = Figure(figsize=(13, 8.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    axes = above.subplots(2, len(STUDY.conditions) // 2, sharex=True, sharey=True)
    for axis, condition in zip(axes.flat, STUDY.conditions, strict=True):
        for course in (course for course in found if course.condition == condition):
            axis.plot(course.pass_at_1, color="#0072b2", linewidth=1.1, alpha=0.75)
            if course.fall is not None:
                axis.plot(course.fall, course.pass_at_1[course.fall], "o", color="#d55e00", markersize=4)
        axis.set_title(condition, fontsize=9, loc="left")
        axis.set_ylim(0, 0.85)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    above.supylabel("pass@1, report split", fontsize=9)
    above.supxlabel("optimizer step", fontsize=9)
    shown = [row for i, row in enumerate(rows) if i < SHOWN or row["signal"] in LEVELS]
    for axis, label in zip(below.subplots(1, 2, sharey=True), ("fall", "matched"), strict=True):
        for place, row in enumerate(reversed(shown)):
            color = "#d55e00" if row["signal"] in LEVELS else "#0072b2"
            axis.plot([row[f"{label}_low"], row[f"{label}_high"]], [place, place], color=color, linewidth=1.5)
            axis.plot(row[f"auc_{label}"], place, "o", color=color, markersize=5)
        axis.axvline(0.5, color="#999", linewidth=0.8)
        axis.set_yticks(range(len(shown)), [row["signal"] for row in reversed(shown)], fontsize=8)
        axis.set_title(TITLES[label], fontsize=9, loc="left")
        axis.set_xlim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_figure(HERE / "figure.png", dpi=150)


def families(found: list[Course]) -> dict[str, list[Course]]:
    """The falling causes by kind, each with all sound runs."""
    sound = [course for course in found if course.fall is None]
    kinds = {"stale": "stale", "on-policy": "on-policy", "bonus": "entropy"}
    return {kind: sound + [c for c in found if c.fall and c.condition.startswith(word)] for kind, word in kinds.items()}


if __name__ == "__main__":
    main(STUDY, read)
