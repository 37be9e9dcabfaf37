"""Staleness: which corrections save learning from completions that an older policy sampled."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from tables import (
    add_rows,
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

from entrostat.report.style import BLUE, INK, ORANGE
from entrostat.runs import Run

HERE = Path(__file__).parent
TABLE, NETWORK = Path("recipes/staleness/tabular.yaml"), Path("recipes/staleness/embedded.yaml")
FALLEN = 0.2  # below the peak
AGE, NETWORK_AGE = 16, 8  # optimizer steps, of the completions that corrections are tried on
FRESH, STALE = "fresh", f"{AGE} updates old"
RATIO = "ratio to the sampler"


def old(updates: int, *others: str) -> list[str]:
    """Completions of a policy some updates old, and further changes."""
    return [f"rollout.staleness={updates}", *others]


CAUSES = {
    FRESH: [],
    "4 updates old": old(4),
    STALE: old(AGE),
    "fresh, four passes": ["update.epochs=4"],
    f"{AGE} updates old, four passes": old(AGE, "update.epochs=4"),
    "fresh, rate .1": ["update.learning_rate=0.1"],
    f"{AGE} updates old, rate .1": old(AGE, "update.learning_rate=0.1"),
}
CORRECTIONS = {
    RATIO: old(AGE, "update.old_logp=sampler"),
    "TIS, token": old(AGE, "control.correction={name: tis, level: token}"),
    "TIS, sequence": old(AGE, "control.correction={name: tis, level: sequence}"),
    "MIS, token": old(AGE, "control.correction={name: mis, level: token}"),
    "MIS, sequence": old(AGE, "control.correction={name: mis, level: sequence}"),
    "IcePop": old(AGE, "control.correction=icepop"),
    "seq-mask-TIS": old(AGE, "control.correction=seq-mask-tis"),
    "decoupled": old(AGE, "control.correction=decoupled"),
    "OPSM": old(AGE, "control.correction=opsm"),
    "ESTR": old(AGE, "control.correction=estr"),
    "ratio clipped at .2": old(AGE, "update.old_logp=sampler", "update.objective=clip"),
}
OUTCOMES = ("train_end", "pass_1", "pass_16")
SIGNALS = ("kl_old", "kl_sampler", "ratio_outside", "log_ratio_min_punished")

IN_TABLE = {name: Condition(TABLE, changes) for name, changes in {**CAUSES, **CORRECTIONS}.items()}


def network(name: str) -> str:
    """The condition of a network that is called `name`."""
    return f"network, {name}"


NETWORK_STALE = f"{NETWORK_AGE} updates old"
IN_NETWORK = {
    network(name): Condition(NETWORK, changes)
    for name, changes in {
        FRESH: [],
        NETWORK_STALE: old(NETWORK_AGE),
        RATIO: old(NETWORK_AGE, "update.old_logp=sampler"),
        "TIS, token": old(NETWORK_AGE, "control.correction={name: tis, level: token}"),
        "OPSM": old(NETWORK_AGE, "control.correction=opsm"),
        "ratio clipped at .2": old(NETWORK_AGE, "update.old_logp=sampler", "update.objective=clip"),
    }.items()
}
STUDY = MeasuredStudy("staleness", {**IN_TABLE, **IN_NETWORK})
PLANNED = [
    *((name, FRESH, "train_end") for name in CAUSES if name != FRESH),
    *((name, STALE, field) for field in OUTCOMES for name in (FRESH, *CORRECTIONS)),
]
NETWORK_PLANNED = [
    (name, network(NETWORK_STALE), field)
    for field in ("pass_1", "train_end")
    for name in IN_NETWORK
    if name != network(NETWORK_STALE)
]


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps, report = run.steps(), run.evals("report")
    own = table_row(steps) if run.recipe["engine"] == "tabular" else network_row(steps)
    row = {
        "seed": run.seed,
        **{f"pass_{k}": value for k, value in report[-1]["pass_at"].items()},
        **{name: mismatch(steps, name) for name in ("k1", "k3", "chi2", "sample_size", "outside", "masked")},
        **own,
        "seconds": json.loads((folder / "seconds.json").read_text()),
    }
    (folder / "row.json").write_text(json.dumps(row))


def table_row(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Exact success on the training tasks and entropy; the mean KL of the sampler to the policy."""
    course = [step["exact"]["success"] for step in steps]
    return {
        "train_peak": max(course),
        "train_end": course[-1],
        "entropy_end": steps[-1]["exact"]["token_entropy"],
        "kl_exact": fmean(step["exact"]["kl_sampler"] for step in steps),
        "course": course[7::8],
    }


def network_row(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of rewarded completions in means over four steps, and the entropy of the last step."""
    course = [fmean(step["reward"] for step in steps[at : at + 4]) for at in range(0, len(steps), 4)]
    return {
        "train_peak": max(course),
        "train_end": course[-1],
        "entropy_end": steps[-1]["entropy"],
        "course": course,
    }


def mismatch(steps: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The mean of a metric of the mismatch over the run; None where the ratio to the sampler leaves none to measure."""
    values = [step["mismatch"][name] for step in steps if step.get("mismatch")]
    return fmean(values) if values else None


def evaluations(run: Run) -> Iterator[dict[str, Any]]:
    """A network's evaluations: how many samples of each task passed, and the strongest signals since the last one."""
    steps, since = run.steps(), 0
    for line in run.evals("select"):
        recent = steps[since : line["step"]]
        since = line["step"]
        yield {
            "step": since,
            "lr": max((step["lr"] for step in recent), default=0.0),
            **{name: max((step.get(name) or 0.0 for step in recent), key=abs, default=0.0) for name in SIGNALS},
            "passed": "p" + "".join(str(passed) for _, _, passed in line["results"]),
        }


def collect() -> None:
    """Add the measured runs to table.csv, network.csv and courses.csv.gz, and to evaluations.csv.gz for early-stop."""
    courses = []
    for file, conditions in ((HERE / "table.csv", IN_TABLE), (HERE / "network.csv", IN_NETWORK)):
        rows = []
        for condition in conditions:
            for row in STUDY.measured()[condition]:
                points = row.pop("course")
                rows.append({"condition": condition, **row})
                key, every = {"condition": condition, "seed": row["seed"]}, 8 if conditions is IN_TABLE else 4
                courses += [{**key, "step": every * (n + 1), "success": value} for n, value in enumerate(points)]
        add_rows(file, rows, ("condition", "seed"), list(conditions))
    add_rows(HERE / "courses.csv.gz", courses, ("condition", "seed", "step"), [*IN_TABLE, *IN_NETWORK])
    evaluated = [
        {"condition": condition, "seed": run.seed, **row}
        for condition in IN_NETWORK
        for run in STUDY.finished(condition)
        for row in evaluations(run)
    ]
    add_rows(HERE / "evaluations.csv.gz", evaluated, ("condition", "seed", "step"), list(IN_NETWORK))


def read() -> None:
    """contrasts.csv, the README's tables and the figures, from what `collect` wrote."""
    rows, in_network = read_rows(HERE / "table.csv"), read_rows(HERE / "network.csv")
    found, others = contrasts(rows, PLANNED), contrasts(in_network, NETWORK_PLANNED)
    write_rows(HERE / "contrasts.csv", [*found, *others])
    fill(
        HERE / "README.md",
        {
            "network": network_table(in_network),
            "network contrasts": contrast_table(others),
            "ends": ends(rows),
            "causes": contrast_table([one for one in found if one["other"] == FRESH]),
            "corrections": contrast_table([one for one in found if one["other"] == STALE]),
            "mismatch": mismatch_table(rows),
            "cost": cost_table([*rows, *in_network]),
        },
    )
    courses = read_rows(HERE / "courses.csv.gz")
    draw(HERE / "figure.png", [row for row in courses if row["condition"] in IN_NETWORK], network_drawn)
    draw(HERE / "ends.png", [{k: row[k] for k in ("condition", "seed", *OUTCOMES)} for row in rows], drawn)
    draw(HERE / "courses.png", [row for row in courses if row["condition"] in IN_TABLE], courses_drawn)


def network_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Peak and end in a network, and how many runs fell."""
    head = ("condition", "n", "rewarded, peak", "rewarded, end", "pass@1, report", "fell", "k3", "chi2", "sample size")
    lines = []
    for name in IN_NETWORK:
        own = of_condition(rows, name)
        fell = sum(row["train_peak"] - row["train_end"] > FALLEN for row in own)
        cells = (summary(own, field, 2) for field in ("train_peak", "train_end", "pass_1"))
        sampler = (mean_of(own, field) for field in ("k3", "chi2", "sample_size"))
        lines.append((name.removeprefix("network, "), len(own), *cells, f"{fell} of {len(own)}", *sampler))
    return table(head, lines)


def mean_of(rows: Sequence[Mapping[str, Any]], field: str) -> str:
    """The mean over seeds; - where it is not measured."""
    return "-" if rows[0][field] is None else f"{fmean(row[field] for row in rows):.3f}"


def of_condition(rows: Sequence[Mapping[str, Any]], condition: str) -> list[Mapping[str, Any]]:
    """The rows of one condition."""
    return [row for row in rows if row["condition"] == condition]


def ends(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each condition ends at."""
    head = ("condition", "n", "success, training tasks", "pass@1, report", "pass@16, report", "entropy")
    fields = (*OUTCOMES, "entropy_end")
    lines = []
    for name in IN_TABLE:
        own = of_condition(rows, name)
        lines.append((name, len(own), *(summary(own, field) for field in fields)))
    return table(head, lines)


def mismatch_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The mismatch along the run, by condition: means over steps, then over seeds."""
    fields = ("kl_exact", "k1", "k3", "chi2", "sample_size", "outside", "masked")
    lines = []
    for name in IN_TABLE:
        own = of_condition(rows, name)
        lines.append((name, *(mean_of(own, field) for field in fields)))
    head = ("condition", "KL to the policy, exact", "k1", "k3", "chi2", "sample size", "outside", "masked")
    return table(head, lines)


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every seed's end, mean and interval by condition; lines at the means of fresh and of uncorrected stale."""
    titles = ("success, training tasks", "pass@1, report tasks", "pass@16, report tasks")
    panels = {
        title: {name: [row[field] for row in of_condition(rows, name)] for name in IN_TABLE}
        for title, field in zip(titles, OUTCOMES, strict=True)
    }
    figure = dots(panels, width=2.7)
    for axis, groups in zip(figure.axes, panels.values(), strict=True):
        axis.set_xlim(-0.03, 1.03)
        axis.axvline(fmean(groups[FRESH]), color=INK, linewidth=0.8)
        axis.axvline(fmean(groups[STALE]), color=ORANGE, linewidth=0.8, linestyle=(0, (4, 3)))
    figure.suptitle(f"End of training, exact. Solid line: fresh. Dashed: {AGE} updates old, no correction", fontsize=9)
    return figure


def courses_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Success along the run in a table: a panel per correction beside fresh and uncorrected."""
    return beside(rows, {name: name for name in CORRECTIONS}, FRESH, STALE, "success on the training tasks, exact")


def network_drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The share of rewarded completions along the run in a network, in the same way."""
    stale, fresh = network(NETWORK_STALE), network(FRESH)
    corrected = {name.removeprefix("network, "): name for name in IN_NETWORK if name not in (stale, fresh)}
    return beside(rows, corrected, fresh, stale, "share of completions rewarded")


def beside(
    rows: Sequence[Mapping[str, Any]], panels: Mapping[str, str], fresh: str, stale: str, quantity: str
) -> Figure:
    """A panel per correction: it, fresh and uncorrected, every seed (thin) and the means."""
    columns = 4 if len(panels) > 5 else len(panels) + 1
    lines = -(-(len(panels) + 1) // columns)
    figure = Figure(figsize=(11, 2.3 * lines + 0.4), layout="constrained")
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axis, (title, correction) in zip(axes, panels.items(), strict=False):
        for name, colour in ((fresh, INK), (stale, ORANGE), (correction, BLUE)):
            own = of_condition(rows, name)
            steps = sorted({row["step"] for row in own})
            for seed in sorted({row["seed"] for row in own}):
                course = [row["success"] for row in own if row["seed"] == seed]
                axis.plot(steps, course, color=colour, linewidth=0.5, alpha=0.4)
            mean = [fmean(row["success"] for row in own if row["step"] == step) for step in steps]
            axis.plot(steps, mean, color=colour, linewidth=2)
        n, whole = (len({row["seed"] for row in of_condition(rows, name)}) for name in (correction, fresh))
        axis.set_title(title if n == whole else f"{title}, n = {n}")
        axis.set_ylim(0, 1)
    for axis in axes[len(panels) - columns : len(panels)]:
        axis.tick_params(labelbottom=True)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for colour, label in ((INK, "fresh"), (ORANGE, "stale, no correction"), (BLUE, "stale, as the panel says")):
        axes[len(panels)].plot([], [], color=colour, linewidth=2, label=label)
    axes[len(panels)].legend(loc="center", frameon=False)
    figure.supxlabel("optimizer step", fontsize=9)
    figure.supylabel(quantity, fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
