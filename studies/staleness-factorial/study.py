"""Staleness x passes x rate x correction: which of them costs success, and which correction gives it back."""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import Condition, MeasuredStudy, main
from matplotlib.figure import Figure
from tables import (
    Row,
    add_rows,
    contrast_table,
    contrasts,
    cost_table,
    draw,
    fill,
    read_rows,
    summary,
    table,
    write_rows,
)

from entrostat.report.style import BLUE, GREEN, ORANGE, PURPLE
from entrostat.runs import Run, share_interval

HERE = Path(__file__).parent
TABULAR = Path("recipes/staleness/tabular.yaml")
AGES = (0, 4, 16)  # optimizer steps; corrections are tried at the greatest
OLD = AGES[-1]
PASSES = (1, 4)
RATES = (0.1, 0.3)
NONE = "none"
CORRECTIONS = {
    NONE: [],
    "seq-mask-TIS": ["control.correction=seq-mask-tis"],
    "decoupled": ["control.correction=decoupled"],
    "OPSM": ["control.correction=opsm"],
}
CORRECTED = [name for name in CORRECTIONS if name != NONE]
SIGNALS = ("k1", "k3", "chi2", "sample_size", "outside", "masked")


def called(age: int, passes: int, rate: float, correction: str) -> str:
    """The name of a condition."""
    return f"table, age {age}, passes {passes}, rate {rate:g}, {correction}"


# completions of age 0 have weights of 1, so a correction would change nothing there
CELLS = [cell for cell in product(AGES, PASSES, RATES, CORRECTIONS) if cell[0] == OLD or cell[3] == NONE]
CONDITIONS = {
    called(age, passes, rate, correction): Condition(
        TABULAR,
        [
            f"rollout.staleness={age}",
            f"update.epochs={passes}",
            f"update.learning_rate={rate}",
            *CORRECTIONS[correction],
        ],
    )
    for age, passes, rate, correction in CELLS
}
STUDY = MeasuredStudy("staleness-factorial", CONDITIONS)
EARLIER = {  # cells that studies/staleness has run on other seeds; its rows are used
    "fresh": (0, 1, 0.3, NONE),
    "4 updates old": (4, 1, 0.3, NONE),
    "16 updates old": (16, 1, 0.3, NONE),
    "fresh, four passes": (0, 4, 0.3, NONE),
    "16 updates old, four passes": (16, 4, 0.3, NONE),
    "fresh, rate .1": (0, 1, 0.1, NONE),
    "16 updates old, rate .1": (16, 1, 0.1, NONE),
    **{name: (16, 1, 0.3, name) for name in CORRECTED},
}


def measure(folder: Path) -> None:
    """Write what the tables need of a finished run to row.json, once."""
    if (folder / "row.json").exists():
        return
    run = Run.open(folder)
    steps, report = run.steps(), run.evals("report")[-1]["pass_at"]
    course = [step["exact"]["success"] for step in steps]
    row = {
        "seed": run.seed,
        "train_peak": max(course),
        "train_end": course[-1],
        **{f"pass_{k}": value for k, value in report.items()},
        "entropy_end": steps[-1]["exact"]["token_entropy"],
        **{name: fmean(step["mismatch"][name] for step in steps) for name in SIGNALS},
        **warnings(steps),
        "seconds": json.loads((folder / "seconds.json").read_text()),
    }
    (folder / "row.json").write_text(json.dumps(row))


def warnings(steps: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """The first step at which the watchdog warns of the mismatch, and finds it critical, and at which the KL to the
    sampling policy is above the limit of `crest`.
    """
    from entrostat.campaign.crest import Crest
    from entrostat.diagnosis import Watchdog, recognise_row
    from entrostat.diagnosis.reading.folder import step_row

    watchdog = Watchdog(end=len(steps))
    found: dict[str, int | None] = {"warning": None, "critical": None}
    for line in steps:
        for finding in watchdog.observe(line["step"], recognise_row(step_row(line)).values):
            if finding.kind == "sampler-mismatch" and finding.severity in found:
                found[finding.severity] = found[finding.severity] or finding.step
    limit = Crest().kl
    over = (s["step"] for s in steps if max(abs(s.get(name) or 0.0) for name in ("kl_old", "kl_sampler")) > limit)
    seen = found["warning"] or found["critical"]
    return {"mismatch_warned": seen, "mismatch_critical": found["critical"], "crest_over": next(over, None)}


def collect() -> None:
    """Add runs of here and of studies/staleness to results.csv: of the seeds of which every condition is there."""
    measured: dict[str, dict[int, Row]] = {
        condition: {row["seed"]: row for row in rows} for condition, rows in STUDY.measured().items()
    }
    for row in read_rows(HERE.parent / "staleness" / "table.csv"):
        if row["condition"] in EARLIER:
            measured[called(*EARLIER[row["condition"]])].setdefault(row["seed"], row)
    whole = sorted(set.intersection(*map(set, measured.values())))
    rows = [
        {
            "condition": called(*cell),
            **dict(zip(("age", "passes", "rate", "correction"), cell, strict=True)),
            **{name: measured[called(*cell)][seed].get(name) for name in KEPT},
        }
        for cell in CELLS
        for seed in whole
    ]
    add_rows(HERE / "results.csv", rows, ("condition", "seed"), list(CONDITIONS))


KEPT = (
    *("seed", "train_peak", "train_end", "pass_1", "pass_4", "pass_16", "entropy_end", *SIGNALS),
    *("mismatch_warned", "mismatch_critical", "crest_over", "seconds"),
)


def groups() -> dict[str, list[str]]:
    """Conditions whose mean is compared, by name: the levels of a factor, and the two halves of an interaction."""
    low, high = RATES
    plain = list(product((0, OLD), PASSES, RATES))

    def those(*chosen: tuple[int, int, float], correction: str = NONE) -> list[str]:
        return [called(*cell, correction) for cell in chosen]

    signs = {cell: (cell[0] == OLD, cell[1] == PASSES[-1], cell[2] == high) for cell in plain}
    names = ("age", "passes", "rate")
    made = {
        f"{OLD} updates old": those(*(cell for cell in plain if cell[0])),
        "fresh": those(*(cell for cell in plain if not cell[0])),
        "four passes": those(*(cell for cell in plain if cell[1] == PASSES[-1])),
        "one pass": those(*(cell for cell in plain if cell[1] == 1)),
        f"rate {high:g}": those(*(cell for cell in plain if cell[2] == high)),
        f"rate {low:g}": those(*(cell for cell in plain if cell[2] == low)),
    }
    for one, other in ((0, 1), (0, 2), (1, 2)):
        title = f"{names[one]} x {names[other]}"
        made[f"{title}, both or neither"] = those(*(c for c in plain if signs[c][one] == signs[c][other]))
        made[f"{title}, one of them"] = those(*(c for c in plain if signs[c][one] != signs[c][other]))
    stale = [cell for cell in plain if cell[0]]
    made |= {f"corrected, {name}": those(*stale, correction=name) for name in CORRECTIONS}
    for cell in stale:
        made |= {corrected(*cell[1:], name): those(cell, correction=name) for name in CORRECTIONS}
    return made


def corrected(passes: int, rate: float, name: str) -> str:
    """What a cell of the greatest age is called in the table of contrasts."""
    return f"corrected, {passes} pass{'es' * (passes > 1)}, rate {rate:g}, {name}"


def planned() -> list[tuple[str, str, str]]:
    """One family: the effects of the factors without a correction, then what each correction brings at the greatest
    age, over all passes and rates (success and pass@1) and in each of them.
    """
    effects = [(f"{OLD} updates old", "fresh"), ("four passes", "one pass"), tuple(f"rate {r:g}" for r in RATES[::-1])]
    crossed = [f"{title}, " for title in ("age x passes", "age x rate", "passes x rate")]
    return [
        *((one, other, "train_end") for one, other in effects),
        *((title + "both or neither", title + "one of them", "train_end") for title in crossed),
        *((f"corrected, {n}", f"corrected, {NONE}", field) for field in ("train_end", "pass_1") for n in CORRECTED),
        *(
            (corrected(passes, rate, n), corrected(passes, rate, NONE), "train_end")
            for passes, rate in product(PASSES, RATES)
            for n in CORRECTED
        ),
    ]


def pooled(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The mean of each group of conditions, seed by seed."""
    of = {(row["condition"], row["seed"]): row for row in rows}
    return [
        {
            "condition": name,
            "seed": seed,
            **{field: fmean(of[member, seed][field] for member in members) for field in ("train_end", "pass_1")},
        }
        for name, members in groups().items()
        for seed in sorted({row["seed"] for row in rows})
    ]


def read() -> None:
    """contrasts.csv, the README's tables and the figure, from what `collect` wrote."""
    rows = read_rows(HERE / "results.csv")
    found = contrasts(pooled(rows), planned())
    write_rows(HERE / "contrasts.csv", found)
    fill(
        HERE / "README.md",
        {
            "ends": ends(rows),
            "effects": contrast_table([one for one in found if not one["condition"].startswith("corrected")]),
            "corrections": contrast_table([one for one in found if one["condition"].startswith("corrected")]),
            "warnings": warned(rows),
            "cost": cost_table(rows),
        },
    )
    fields = ("condition", "seed", "train_end", "pass_1")
    draw(HERE / "figure.png", [{field: row[field] for field in fields} for row in rows], drawn)


def of_condition(rows: Sequence[Mapping[str, Any]], *cell: Any) -> list[Mapping[str, Any]]:
    """The rows of one cell."""
    return [row for row in rows if row["condition"] == called(*cell)]


def ends(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each cell ends at, and the mismatch on the way."""
    head = ("age", "passes", "rate", "correction", "n", "success, training tasks", "pass@1", "pass@16")
    lines = []
    for cell in CELLS:
        own = of_condition(rows, *cell)
        shown = (summary(own, field) for field in ("train_end", "pass_1", "pass_16"))
        sampler = (f"{fmean(row[name] for row in own):.3f}" for name in ("k3", "sample_size", "masked"))
        lines.append((*cell, len(own), *shown, *sampler))
    return table((*head, "k3", "sample size", "masked"), lines)


def warned(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the runs without a correction: in how many the mismatch was seen, and the median step at which it was."""
    fields = ("mismatch_warned", "mismatch_critical", "crest_over")
    earlier = {row["seed"] for row in read_rows(HERE.parent / "staleness" / "table.csv")}  # where it was not measured
    seeds, lines = {row["seed"] for row in rows} - earlier, []
    for cell in CELLS:
        if cell[3] == NONE:
            own = of_condition(rows, *cell)
            own = [row for row in own if row["seed"] in seeds]
            steps = [sorted(row[field] for row in own if row[field] is not None) for field in fields]
            texts = (f"{len(s)} of {len(own)}" + (f", step {s[len(s) // 2]}" if s else "") for s in steps)
            lines.append((*cell[:3], *texts))
    return table(("age", "passes", "rate", "watchdog warns", "critical", "above crest's limit of KL"), lines)


COLOURS = dict(zip(CORRECTIONS, (ORANGE, PURPLE, GREEN, BLUE), strict=True))
SHIFT = dict(zip(CORRECTIONS, (-0.15, -0.05, 0.05, 0.15), strict=True))


def drawn(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Success and pass@1 by age: a column per passes and rate, a colour per correction; mean, interval, every seed."""
    columns = list(product(PASSES, RATES))
    titles = {"train_end": "success, training tasks", "pass_1": "pass@1, report tasks"}
    figure = Figure(figsize=(10.5, 5.4), layout="constrained")
    axes = figure.subplots(len(titles), len(columns), sharex=True, sharey=True)
    for line, (field, title) in zip(axes, titles.items(), strict=True):
        for axis, (passes, rate) in zip(line, columns, strict=True):
            axis.grid(axis="y")
            for cell in CELLS:
                age, correction = cell[0], cell[3]
                if cell[1:3] != (passes, rate):
                    continue
                at = AGES.index(age) + (SHIFT[correction] if age == OLD else 0)
                values = [row[field] for row in of_condition(rows, *cell)]
                found, colour = share_interval(values), COLOURS[correction]
                axis.plot([at] * len(values), values, "o", color=colour, markersize=2, alpha=0.35, linewidth=0)
                if found.low is not None and found.high is not None:
                    axis.plot([at, at], [max(found.low, 0), min(found.high, 1)], color=colour, linewidth=1.4)
                label = "no correction" if correction == NONE else correction
                axis.plot(at, found.mean, "o", color=colour, markersize=5, label=label if age == OLD else None)
            axis.set_xticks(range(len(AGES)), [str(age) for age in AGES])
            axis.set_ylim(-0.03, 1.03)
            axis.set_title(f"{passes} pass{'es' * (passes > 1)}, rate {rate:g}" if field == "train_end" else "")
        line[0].set_ylabel(title)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(CORRECTIONS), frameon=False)
    figure.supxlabel("age of the completions, optimizer steps: every seed, mean, 95 % interval", fontsize=9)
    return figure


if __name__ == "__main__":
    main(STUDY, read, collect, measure)
