"""Does a signal of the training steps announce a collapse? Runs with several causes, evaluated at every step."""

import csv
import gzip
import sys
from importlib import resources
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from announcing import Course, auc_interval, auc_of, threshold, transferred
from common import Condition, Study, main, write_csv
from signals import signals

from entrostat.runs import Trajectory

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


def courses() -> list[Course]:
    """All finished runs."""
    found = []
    for condition in STUDY.conditions:
        for run in STUDY.finished(condition):
            trajectory = Trajectory.from_evals(run.evals("report"))
            found.append(Course(condition, run.seed, np.array(trajectory.pass_at_1), signals(run.steps())))
    return found


def table(found: list[Course]) -> None:
    """Write steps.csv.gz: a row a step of a run, pass@1 after it and every signal at it."""
    names = [name for name in found[0].signals if not name.endswith(", held")]
    with gzip.open(HERE / "steps.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["condition", "seed", "step", "pass_at_1", *names])
        for course in found:
            for step in range(1, len(course.pass_at_1)):
                row = [f"{course.signals[name][step - 1]:.5g}" for name in names]
                writer.writerow([course.condition, course.seed, step, f"{course.pass_at_1[step]:.4f}", *row])


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
    rows = []
    for signal in found[0].signals:
        value, low, high = auc_interval(found, signal, "dropping")
        before, before_low, before_high = auc_interval(found, signal, "falling")
        moved = transferred(found, [signal])
        rows.append(
            {
                "signal": signal,
                "auc_drop": value,
                "drop_low": low,
                "drop_high": high,
                "auc_fall": before,
                "fall_low": before_low,
                "fall_high": before_high,
                **{f"auc_fall, {family}": auc_of(own, signal, "falling") for family, own in families(found).items()},
                "threshold": threshold(found, signal),
                "falls": moved.falls,
                "caught": moved.caught,
                "median_lead": float(np.median(moved.leads)) if moved.leads else 0.0,
                "false_alarm_rate": moved.false_alarms / moved.safe_steps,
                "sound_runs": moved.sound_runs,
                "sound_runs_stopped": moved.false_runs,
            }
        )
    rows.sort(key=lambda row: -row["auc_fall"])
    write_csv(HERE / "signals.csv", rows)
    for row in rows:
        print(
            f"{row['signal']:<38} drop {row['auc_drop']:.2f} [{row['drop_low']:.2f}, {row['drop_high']:.2f}] "
            f"fall {row['auc_fall']:.2f} [{row['fall_low']:.2f}, {row['fall_high']:.2f}] "
            + " ".join(f"{row[f'auc_fall, {family}']:.2f}" for family in families(found))
            + f"  caught {row['caught']} of {row['falls']}, lead {row['median_lead']:.0f}, "
            f"false {row['false_alarm_rate']:.3f}, sound {row['sound_runs_stopped']} of {row['sound_runs']}"
        )


def families(found: list[Course]) -> dict[str, list[Course]]:
    """The falling causes by kind, each with all sound runs."""
    sound = [course for course in found if course.fall is None]
    kinds = {"stale": "stale", "on-policy": "on-policy", "bonus": "entropy"}
    return {kind: sound + [c for c in found if c.fall and c.condition.startswith(word)] for kind, word in kinds.items()}


if __name__ == "__main__":
    main(STUDY, read)
