"""restart-from-traces beside stop, keep-peak and roll-back, on runs that stale completions end early."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from tables import (
    add_rows,
    cell,
    contrast_table,
    contrasts,
    cost_table,
    dots,
    draw,
    fill,
    read_rows,
    summary,
    table,
    write_rows,
)

from entrostat.runs import Run

HERE = Path(__file__).parent
TABULAR = Path("recipes/staleness/tabular.yaml")
STALE = ["rollout.staleness=16"]
REUSED = ["update.epochs=4"]
EVALUATED = ["tasks.select=24", "evaluation={every: 8, report: peak, samples: 16, pass_at: [1, 16]}"]
NO_ACTION = "no action"
RESTART = "restart from traces"
STEPS = 96
BATCH = 64  # completions per rollout batch, and per supervised step


def watched(action: str, **settings: object) -> list[str]:
    """The watchdog with an action, and what goes with it."""
    return [f"watch={json.dumps({'action': action, **settings})}"]


ACTIONS = {
    NO_ACTION: watched("note"),
    "stop": watched("stop"),
    "keep the peak": watched("keep-peak"),
    "roll-back": watched("roll-back"),
    "roll-back, half the rate": watched("roll-back", switch={"update": {"learning_rate": 0.15}}),
    RESTART: watched("restart-from-traces"),
    "restart at the peak": watched("restart-from-traces", restart={"policy": "peak"}),
}
PREVENTED = "OPSM, no action"
FOUR = "four passes, "
CONDITIONS = {
    **{name: [*STALE, *action] for name, action in ACTIONS.items()},
    PREVENTED: [*STALE, *ACTIONS[NO_ACTION], "control.correction=opsm"],
    **{FOUR + name: [*REUSED, *ACTIONS[name]] for name in (NO_ACTION, "roll-back", RESTART)},
}
STUDY = MeasuredStudy(
    "restart", {name: Condition(TABULAR, [*EVALUATED, *settings]) for name, settings in CONDITIONS.items()}
)
OUTCOMES = ("pass_1", "pass_16", "train_end")
PLANNED = [
    *((name, NO_ACTION, field) for field in OUTCOMES for name in [*list(ACTIONS)[1:], PREVENTED]),
    *((RESTART, other, field) for field in OUTCOMES for other in ("roll-back", "roll-back, half the rate")),
    *((FOUR + name, FOUR + NO_ACTION, field) for field in OUTCOMES for name in ("roll-back", RESTART)),
]


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run, its part after the action included, to row.json, once."""
    if (folder / "row.json").exists():
        return
    first = Run.open(folder)
    second = Run.open(folder / "after-roll-back") if (folder / "after-roll-back").exists() else None
    last = second or first
    end = len(last.steps())
    back = [line["to_step"] for line in last.decisions() if line["kind"] == "roll-back"]
    step = back[-1] if back else end
    report = next(line["pass_at"] for line in last.evals("report") if line["step"] == step)
    steps = [*first.steps(), *(second.steps() if second else [])]
    supervised = sum("traces" in line for line in steps)
    # a batch's completions are sampled before its first pass
    sampled = BATCH * sum(line["tokens"]["rollout"] > 0 for line in steps if "traces" not in line)
    row = {
        "seed": first.seed,
        **{f"pass_{k}": value for k, value in report.items()},
        "train_end": last.steps()[-1]["exact"]["success"],
        "entropy_end": last.steps()[-1]["exact"]["token_entropy"],
        "acted_at": len(first.steps()) if second or len(first.steps()) < first.recipe["campaign"]["steps"] else None,
        "cause": cause_of(first),
        "steps": len(steps),
        "supervised": supervised,
        "sampled": sampled,
        "seconds": json.loads((folder / "seconds.json").read_text()),
        "course": [line["exact"]["success"] for line in steps][3::4],
    }
    (folder / "row.json").write_text(json.dumps(row))


def cause_of(run: Run) -> str:
    """The kind of the first critical finding; empty if there is none."""
    causes = (line["cause"] for line in run.decisions() if line["kind"] == "finding")
    return next((cause.split()[1] for cause in causes if cause.startswith("critical")), "")


def collect() -> None:
    """Add the measured runs to results.csv and courses.csv.gz."""
    rows, courses = [], []
    for condition, measured in STUDY.measured().items():
        for row in measured:
            points = row.pop("course")
            rows.append({"condition": condition, **row})
            key = {"condition": condition, "seed": row["seed"]}
            courses += [{**key, "step": 4 * (n + 1), "success": value} for n, value in enumerate(points)]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(STUDY.conditions))
    add_rows(HERE / "courses.csv.gz", courses, ("condition", "seed", "step"), list(STUDY.conditions))


def read() -> None:
    """contrasts.csv, the README's tables and the figure, from the tables that `collect` writes."""
    rows = read_rows(HERE / "results.csv")
    found = contrasts(rows, PLANNED)
    write_rows(HERE / "contrasts.csv", found)
    fill(
        HERE / "README.md",
        {
            "ends": ends(rows),
            "contrasts": contrast_table(found),
            "price": price(rows),
            "cost": cost_table(rows),
        },
    )
    draw(HERE / "figure.png", [{k: row[k] for k in ("condition", "seed", *OUTCOMES)} for row in rows], drawn)


def of(rows: Sequence[Mapping[str, Any]], condition: str) -> list[Mapping[str, Any]]:
    """The rows of one condition."""
    return [row for row in rows if row["condition"] == condition]


def ends(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is handed over, and how the last part ends."""
    head = ("condition", "n", "pass@1, handed over", "pass@16, handed over", "success, training tasks, end", "entropy")
    lines = []
    for name in CONDITIONS:
        own = of(rows, name)
        lines.append((name, len(own), *(summary(own, field) for field in (*OUTCOMES, "entropy_end"))))
    return table(head, lines)


def price(rows: Sequence[Mapping[str, Any]]) -> str:
    """When the watchdog acted and at what, and the steps and completions that a run took."""
    head = (
        "condition",
        "acted",
        "at step, median",
        "at",
        "optimizer steps",
        "supervised",
        "completions sampled",
    )
    lines = []
    for name in CONDITIONS:
        own = of(rows, name)
        acted = sorted(row["acted_at"] for row in own if row["acted_at"] is not None)
        causes = sorted({row["cause"] for row in own if row["acted_at"] is not None})
        most = {"steps": STEPS, "supervised": STEPS, "sampled": STEPS * BATCH}
        numbers = (cell([row[field] for row in own], 0, 0, limit) for field, limit in most.items())
        middle = acted[len(acted) // 2] if acted else "-"
        lines.append((name, f"{len(acted)} of {len(own)}", middle, ", ".join(causes) or "-", *numbers))
    return table(head, lines)


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every seed, mean and interval by condition."""
    titles = ("pass@1, report, handed over", "pass@16, report, handed over", "success, training tasks, end")
    panels = {
        title: {name: [row[field] for row in of(rows, name)] for name in CONDITIONS}
        for title, field in zip(titles, OUTCOMES, strict=True)
    }
    figure = dots(panels, width=2.7)
    for axis in figure.axes:
        axis.set_xlim(-0.03, 1.03)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
